// What the reader has chosen, and all that follows from it; the parts of the page only show this.

import { palette } from "./colours.js";
import { isPictured, markedKeys, markedName, pictureFold, pictureName, pictureShares } from "./pictured.js";
import { WORDS } from "./language.js";
import { printable, shorten } from "./printable.js";
import { joined, joining, spanText, tokensOf, tokenText, units } from "./units.js";

const BESIDE = ["output_norm", "value_norm"];

const PICTURED = ["decoder", "cross", "resampler", "vision", "encoder", "queries"];

export class View {
  constructor(reading, { language, theme }) {
    this.reading = reading;
    this.live = reading.host.get("live") === true;
    this.exact = reading.host.get("exact") === true;
    this.stops = reading.host.get("stops") === true;
    this.language = language;
    this.theme = theme;
    // of what is looked at, and of what looks
    Object.assign(this, { keyGrain: "token", ownRowGrain: "token" });
    this.statistic = "entropy";
    this.detail = "heatmap";
    this.progress = null;
    this.failure = null;
    Object.assign(this, { heat: 0.85, hasGrid: false });
    // where words look at a picture, or else attention between two texts, which says most about a translation
    const [shown] = PICTURED.flatMap((name) => reading.kinds.filter(({ kind, canvases }) => kind === name && canvases.length));
    const cross = reading.kinds.findIndex(({ kind }) => kind === "cross");
    this.enter(Math.max(0, shown ? reading.kinds.indexOf(shown) : cross));
  }

  enter(index) {
    this.kind = this.reading.kinds[index] ?? null;
    Object.assign(this, { measure: "weights", reduce: "mean", heads: null });
    Object.assign(this, { hover: null, pinned: null, span: null, walking: false });
    // in pictures: what is marked, what is pointed at, and which picture is shown
    Object.assign(this, { region: null, spot: null, image: 0 });
    this.apart = Boolean(this.kind?.within && this.kind.kind !== "vision" && !isPictured(this.kind.looked, 0));
    this.folded = Boolean(this.kind?.regions.isChat);
    this.asksApart = true;
    this.memory = {};
    if (this.kind && !(this.statistic in this.kind.summary)) this.statistic = Object.keys(this.kind.summary)[0];
  }

  get words() {
    return WORDS[this.language];
  }

  // whether what looks stands apart from what is looked at, as an answer or a translation
  get hasTwoParts() {
    const { within, prompt, size } = this.kind;
    return !within || (prompt > 0 && prompt < size);
  }

  get rowGrain() {
    return this.hasTwoParts ? this.ownRowGrain : this.keyGrain;
  }

  get sources() {
    const { kind, reading } = this;
    return kind?.sequence === reading.sequences.text ? (reading.settings.sources ?? null) : null;
  }

  // the part of the answer that is marked or else pinned, as tokens; null is all of it
  get part() {
    const { kind, span, pinned, rowUnits } = this;
    const { prompt, regions } = kind;
    const pin = pinned === null ? null : rowUnits.span(rowUnits.of[pinned]);
    const [start, end] = span && span[1] > prompt ? span : (pin ?? [prompt, regions.last]);
    const part = [Math.max(start, prompt), Math.min(end, regions.last)];
    return part[0] < part[1] && part[1] - part[0] < regions.last - prompt ? part : null;
  }

  // a measure or a number of heads by its label
  named(name) {
    const known = this.reading.statistics[name];
    if (!known) return name === "weights" ? this.words.weights : (this.words.statistic[name] ?? name);
    const label = known.label[this.language];
    return known.unit && known.unit !== "share" ? this.words.withUnit(label, known.unit) : label;
  }

  get choice() {
    return { heads: this.heads, reduce: this.reduce, measure: this.measure };
  }

  // whether weights are the largest of several heads: then nothing is summed or averaged, or more than all of it would be
  get isLargest() {
    const hasHeads = this.reading.statistics[this.measure]?.axes[0] !== "row";
    return this.reduce === "max" && hasHeads && (this.heads?.size ?? this.kind.heads) > 1;
  }

  get scaleName() {
    return this.isLargest ? this.words.largestScale : this.words.weightScale;
  }

  get join() {
    return joining(this.isLargest);
  }

  // follow from the choices; called once a frame
  derive() {
    const { kind } = this;
    this.palette = palette(this.theme);
    if (!kind) return;
    const count = kind.size + (kind.rowOf.has(kind.size) ? 1 : 0);
    const signs = [this.keyGrain, this.folded];
    const { rowGrain, keyGrain } = this;
    this.rowUnits = this.once("rowUnits", [rowGrain, this.folded], () => this.unitsOf(kind.sequence, rowGrain, count, kind.regions));
    const keyRegions = kind.within ? kind.regions : { of: new Int32Array(kind.keys), roles: [null] };
    this.keyUnits = this.once("keyUnits", signs, () => this.unitsOf(kind.looked, keyGrain, kind.keys, keyRegions));
    this.aside = this.once("aside", [...signs, this.apart, this.asks, this.asksApart], () => this.setAside());
    this.isReady = kind.ready(this.choice);
    this.matrix = this.isReady ? this.once("matrix", this.sign(), () => this.table()) : null;
    this.usage = (this.span || this.region || this.spot) && this.matrix ? this.used() : null;
    this.current = this.looked();
    this.scope = this.scoped();
  }

  sign() {
    const heads = this.heads ? [...this.heads].join() : "all";
    const { keyGrain, rowGrain, measure, reduce, apart, folded, asks, asksApart, language } = this;
    return [keyGrain, rowGrain, measure, reduce, heads, apart, folded, asks, asksApart, language];
  }

  // remembers the last answer to a question
  once(name, sign, make) {
    const told = sign.join("|");
    if (this.memory[name]?.told !== told) this.memory[name] = { told, found: make() };
    return this.memory[name].found;
  }

  unitsOf(sequence, grain, count, regions) {
    const isWhole = (region) => this.folded && regions.roles[region] !== null;
    return units(sequence, grain, count, regions, isWhole, this.kind.isImage);
  }

  // of each key unit whether it is left out of colours and lists: the first token, the question, and what is folded away
  setAside() {
    const { apart, keyUnits } = this;
    const [from, to] = (this.asksApart && this.asks) || [0, 0];
    // the silence after a sound, which is in the bar
    const silent = new Set(this.kind.looked.sorts?.["audio padding"]);
    return Uint8Array.from(keyUnits.first, (token, unit) => {
      const begin = this.begin(keyUnits.span(unit));
      return (apart && token === 0) || (from <= begin && begin < to) || this.isFolded(token) || silent.has(token);
    });
  }

  // the tokens of the prompt that ask, where that is known
  get asks() {
    const question = this.sources?.question;
    return question ? tokensOf(this.kind.sequence, question, this.kind.prompt) : null;
  }

  // the first token that is more than space
  begin([first, last]) {
    while (first < last - 1 && !tokenText(this.kind.looked, first).trim()) first++;
    return first;
  }

  isTemplate(token) {
    const { isChat, of, roles } = this.kind.regions;
    return isChat && roles[of[token]] !== null;
  }

  isFolded(token) {
    return this.folded && this.isTemplate(token);
  }

  // what a folded stretch is shown as, and its last token: a picture, or of the template the role that it opens
  fold(token, sequence) {
    const picture = pictureFold(this, token, sequence);
    if (picture || sequence !== this.kind.sequence || !this.isFolded(token)) return picture;
    const { of, roles } = this.kind.regions;
    // a picture may be in the midst of a template, whose role is told once
    const role = token > 0 && of[token - 1] === of[token] ? "" : roles[of[token]];
    let last = of.lastIndexOf(of[token]);
    for (let next = token; next < last; next++) if (isPictured(sequence, next + 1)) last = next;
    return { label: role ? (this.words.roles[role] ?? role) : "⋯", last, isInline: !role };
  }

  spanName(sequence, [first, last]) {
    const picture = pictureName(this, sequence, [first, last]);
    if (picture) return picture;
    // the first token has its own name, also where it stands apart within a template
    if (!this.folded || last === 1) return spanText(sequence, [first, last]);
    const names = [];
    for (let token = first; token < last; ) {
      const fold = this.fold(token, sequence);
      const { of } = this.kind.regions;
      const end = Math.min(last, (fold?.last ?? of.lastIndexOf(of[token])) + 1);
      names.push(fold ? `${printable(fold.label)}:` : spanText(sequence, [token, end]));
      token = end;
    }
    return names.join(" ");
  }

  keyName(unit) {
    return this.spanName(this.kind.looked, this.keyUnits.span(unit));
  }

  rowName(tokens) {
    return tokens[0] >= this.kind.size ? `▸ ${this.words.onward}` : this.spanName(this.kind.sequence, tokens);
  }

  rowsOf([first, last]) {
    const rows = [];
    for (let token = first; token < last; token++) {
      if (this.kind.rowOf.has(token)) rows.push(this.kind.rowOf.get(token));
    }
    return rows;
  }

  // of several rows the mean or largest weight of every key
  together(rows) {
    if (rows.length === 1) return this.kind.row(rows[0], this.choice);
    const { join } = this;
    const count = this.isLargest ? 1 : rows.length;
    const found = new Float32Array(this.kind.keys);
    for (const row of rows) {
      const weights = this.kind.row(row, this.choice);
      for (let key = 0; key < found.length; key++) found[key] = join(found[key], weights[key] / count);
    }
    return found;
  }

  grouped(weights) {
    return this.keyUnits.first.length === weights.length ? weights : joined(weights, this.keyUnits, this.join);
  }

  // the largest weight of the prompt, which is the scale of colours; pictures have their own
  most(weights, withPictures = false) {
    const { kind, aside, keyUnits } = this;
    const end = this.hasTwoParts && kind.within ? kind.prompt : kind.keys;
    const isOnScale = (unit) => {
      const token = keyUnits.first[unit];
      if (aside[unit] || token >= end) return false;
      return isPictured(kind.looked, token) ? withPictures : !this.isTemplate(token);
    };
    return weights.reduce((most, weight, unit) => (isOnScale(unit) ? Math.max(most, weight) : most), 0);
  }

  // every unit of the output that is shown and has rows, with what it gave to every unit that it looked at
  table() {
    const { kind, rowUnits } = this;
    const rows = [];
    let largest = 0;
    let before = -1;
    for (const token of [...kind.tokenOf].sort((one, other) => one - other)) {
      const unit = rowUnits.of[token];
      const isEnd = token >= kind.regions.last && token < kind.size;
      if (unit === before || isEnd || this.isFolded(token)) continue;
      before = unit;
      const tokens = rowUnits.span(unit);
      const own = this.rowsOf(tokens);
      const weights = this.grouped(this.together(own));
      largest = Math.max(largest, this.most(weights, true));
      rows.push({ tokens, rows: own, weights, name: this.rowName(tokens) });
    }
    return { rows, largest };
  }

  // what the active token, or the whole answer, looked at
  looked() {
    const { kind, words } = this;
    const token = this.pinned ?? this.hover;
    const found = { tokens: null, note: null, units: null, beside: null, isExact: false };
    if (token === null) {
      found.rows = kind.answerRows();
      found.title = kind.prompt ? words.wholeAnswer(found.rows.length) : words.wholeText(found.rows.length);
      found.name = found.title;
    } else {
      found.tokens = this.rowUnits.span(this.rowUnits.of[token]);
      found.rows = this.rowsOf(found.tokens);
      found.name = `“${shorten(this.rowName(found.tokens), 60)}”`;
      found.title = words.lookedAt(shorten(this.rowName(found.tokens), 60));
    }
    if (!found.rows.length) {
      // of this token no row was kept
      found.note = words.onlyTop;
      const query = token - (kind.writes ? 1 : 0);
      if (kind.hasTop() && query >= 0 && kind.complete) found.vector = kind.top(query, this.choice);
    } else if (this.isReady) {
      found.vector = token === null ? this.once("whole", this.sign(), () => this.together(found.rows)) : this.together(found.rows);
    }
    if (!found.vector) return found;
    found.units = this.grouped(found.vector);
    found.largest = this.most(found.units);
    const inText = (unit) => !this.aside[unit] && !isPictured(kind.looked, this.keyUnits.first[unit]);
    found.isBeyond = found.units.some((weight, unit) => weight > found.largest && inText(unit));
    found.isExact = this.isExact(found.rows);
    found.balance = this.isLargest ? [] : this.balanced(found.vector);
    this.stand(found);
    return found;
  }

  isExact(rows) {
    if (this.measure !== "weights") return !this.heads && this.reduce === "mean";
    return this.heads ? this.kind.exactly?.has(`${[...this.heads].join()} ${rows.join()}`) : this.reduce === "mean";
  }

  // beside the weights how large weight times value is, as a share of all of it
  stand(found) {
    const name = BESIDE.find((measure) => this.kind.means[measure]);
    if (this.measure !== "weights" || this.heads || this.reduce === "max" || !name || !found.rows.length) return;
    const total = new Float32Array(this.kind.keys);
    let sum = 0;
    for (const row of found.rows) {
      const norms = this.kind.row(row, { heads: null, reduce: "mean", measure: name });
      for (let key = 0; key < total.length; key++) {
        total[key] += norms[key];
        sum += norms[key];
      }
    }
    found.besideName = name;
    found.beside = this.grouped(total.map((norm) => norm / (sum || 1)));
  }

  balanced(vector) {
    const { kind, words } = this;
    const between = (start, end) => vector.subarray(start, end).reduce((sum, weight) => sum + weight, 0);
    const parts = [];
    const start = this.apart ? 1 : 0;
    const size = kind.prompt || kind.keys;
    const label = kind.prompt ? words.prompt : kind.within ? words.input : words.source;
    const template = vector.reduce((sum, weight, token) => sum + (token >= start && this.isTemplate(token) && !isPictured(kind.looked, token) ? weight : 0), 0);
    const question = this.asks && this.asksApart ? between(...this.asks) : 0;
    const pictures = pictureShares(this, vector);
    const seen = pictures.reduce((sum, { share }) => sum + share, 0);
    const rest = between(start, size) - template - question - seen;
    if (!pictures.length || rest > 0.0005) parts.push({ name: "input", share: rest, label: label.toLowerCase() });
    parts.push(...pictures);
    if (question) parts.push({ name: "question", share: question, label: words.question });
    if (kind.regions.isChat) parts.push({ name: "template", share: template, label: words.template });
    if (kind.prompt) parts.push({ name: "answer", share: between(size, kind.keys), label: words.answer.toLowerCase() });
    if (this.apart) parts.push({ name: "first", share: vector[0], label: words.first(shorten(spanText(kind.looked, [0, 1]), 16)) });
    const outside = 1 - parts.reduce((sum, { share }) => sum + share, 0);
    // rounded weights do not quite sum to 1
    if (outside > 0.02) parts.push({ name: "outside", share: outside, label: words.outside });
    return parts;
  }

  // of every row how much of it went to what is marked or pointed at
  used() {
    const { kind, matrix, join } = this;
    const keys = markedKeys(this);
    const byToken = new Float32Array(kind.size + 1);
    const byUnit = new Float32Array(matrix.rows.length);
    matrix.rows.forEach(({ tokens, rows }, index) => {
      const count = this.isLargest ? 1 : rows.length;
      for (const row of rows) {
        const weights = kind.row(row, this.choice);
        for (const key of keys) byUnit[index] = join(byUnit[index], weights[key] / count);
      }
      byToken.fill(byUnit[index], tokens[0], tokens[1]);
    });
    const largest = byUnit.reduce((most, share) => Math.max(most, share), 0);
    const token = this.pinned ?? this.hover;
    const rows = token === null ? [] : this.rowsOf(this.rowUnits.span(this.rowUnits.of[token]));
    const byHead = this.statistic === "span" ? kind.byHead(rows.length ? rows : kind.answerRows(), keys) : null;
    return { byToken, byUnit, largest, byHead, name: markedName(this) };
  }

  scoped() {
    const { kind, words, heads } = this;
    if (!heads && kind.heads > 1) {
      return this.reduce === "max" ? words.largestOf(kind.heads) : words.allHeads(kind.layers.length, kind.heads);
    }
    if (heads?.size > 1) return this.reduce === "max" ? words.largestOf(heads.size) : words.meanOf(heads.size);
    const [layer, head] = kind.place(heads ? [...heads][0] : 0);
    return words.oneHead(kind.layers[layer].layer, head);
  }

  // what is asked of the model before this choice can be shown
  missing() {
    const { kind } = this;
    const wanted = [];
    if (!kind) return wanted;
    for (const measure of ["weights", ...BESIDE.filter((name) => kind.measures.includes(name)).slice(0, 1), this.measure]) {
      if (!kind.means[measure]) wanted.push({ run: () => kind.loadMean(measure) });
    }
    const token = this.pinned ?? this.hover;
    const isUnkept = token !== null && this.rowUnits && !this.rowsOf(this.rowUnits.span(this.rowUnits.of[token])).length;
    const needsAll =
      (this.statistic === "span" && (this.span || this.region)) || (isUnkept && kind.hasTop()) || (this.reduce === "max" && !this.heads);
    kind.layers.forEach((_, layer) => {
      const isChosen = this.heads && [...this.heads].some((head) => kind.place(head)[0] === layer);
      if ((needsAll || isChosen) && !kind.has(layer)) wanted.push({ run: () => kind.loadLayer(layer), layer });
    });
    return wanted;
  }
}
