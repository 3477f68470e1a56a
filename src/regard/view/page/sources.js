// The passages that the answer rests on: the verdict, each passage with what its removal does, and marks in the prompt.

import { element, keepingFocus } from "./dom.js";
import { before } from "./find.js";
import { printable } from "./printable.js";

const NUMBERS = "①②③④⑤⑥⑦⑧⑨⑩";
const MOST = 6;

const numbered = (place) => NUMBERS[place] ?? `(${place + 1})`;
// how much less likely the answer is without it, in nats
const lossOf = ({ effect, estimate }) => -(effect ?? estimate);

export class Sources {
  // `on.ask(hear)` asks the model, `on.go(token)` shows a place, `on.changed()` draws anew
  constructor(view, on) {
    Object.assign(this, { view, on, lit: null, isWhole: false, told: null });
    this.box = element("section", { class: "panel sources", "aria-live": "polite" });
  }

  get found() {
    const { kind, reading } = this.view;
    return kind?.sequence === reading.sequences.text ? (reading.settings.sources ?? null) : null;
  }

  // of each token of the prompt which passage it is in, counted from 1, and 0 outside; −1 is the question
  places() {
    const { found, view } = this;
    if (!found) return null;
    if (this.of !== found) {
      const { starts, ends, text } = view.kind.sequence;
      const { prompt } = view.kind;
      this.of = found;
      this.passages = new Int32Array(prompt);
      const mark = ({ start, end }, number) => {
        const part = text.slice(start, end);
        const first = before(ends, start + part.length - part.trimStart().length + 1, 0, prompt);
        const last = before(starts, end - part.length + part.trimEnd().length, 0, prompt);
        this.passages.fill(number, first, last);
      };
      found.sources.forEach((source, place) => mark(source, place + 1));
      if (found.question) mark(found.question, -1);
    }
    return this.passages;
  }

  // how the tokens of a piece are marked: the names of their looks, and at a passage's first its sign
  marks(first, last) {
    const passages = this.places();
    const number = passages?.[first];
    if (!number) return { names: [], sign: "" };
    const isNamed = number < 0 || this.found.verdict.on.includes(number - 1);
    const isFirst = passages[first - 1] !== number;
    const isLast = passages[last + 1] !== number;
    const names = [];
    if (isNamed || number === this.lit) names.push(number < 0 ? "asks" : "source", isFirst && "begins", isLast && "ends");
    if (number === this.lit) names.push("lit");
    const sign = isFirst && names.length ? (number < 0 ? "?" : numbered(number - 1)) : "";
    return { names: names.filter(Boolean), sign };
  }

  update() {
    const { view, found } = this;
    const { kind, words, live } = view;
    const canAsk = live && kind.sequence === view.reading.sequences.text && kind.prompt > 0 && kind.prompt < kind.regions.last;
    this.box.hidden = !found && !canAsk;
    const sign = [view.language, kind.kind, Boolean(found), this.told, this.isAsking, this.lit, this.isWhole].join("|");
    if (sign === this.sign) return;
    this.sign = sign;
    keepingFocus(this.box, () => this.box.replaceChildren(...(found ? this.list(found, words) : this.asking(words))));
  }

  asking(words) {
    return [
      element(
        "div",
        { class: "panel-head" },
        element("button", { class: "act", disabled: this.isAsking, onclick: () => this.ask() }, words.sources),
        element("p", { class: "note" }, this.told ?? words.sourcesHint),
      ),
    ];
  }

  async ask() {
    const { words } = this.view;
    const tell = (told, isAsking) => {
      Object.assign(this, { told, isAsking });
      this.on.changed();
    };
    tell(words.seeking, true);
    try {
      const { message } = await this.on.ask(({ waiting }) => tell(waiting ? words.waiting(waiting) : words.seeking, true));
      this.view.reading.settings.sources = message.sources;
      tell(null, false);
    } catch (error) {
      tell(words.failed(printable(error.message)), false);
    }
  }

  list(found, words) {
    const { verdict, sources, question } = found;
    const most = Math.max(...sources.map(lossOf), 0);
    const shown = this.isWhole ? sources : sources.slice(0, MOST);
    const list = element("ol", { class: "passages" });
    shown.forEach((source, place) => list.append(this.line(numbered(place), source, place + 1, most, verdict.on.includes(place))));
    const left = sources.slice(shown.length);
    if (left.length) {
      const loss = left.reduce((sum, source) => sum + lossOf(source), 0);
      const more = element("button", { class: "quiet", onclick: () => this.change({ isWhole: true }) }, words.others(left.length));
      list.append(element("li", {}, element("span", {}), element("b", { class: "is-estimate" }, figure(loss)), element("span", {}), more));
    }
    if (question) list.append(this.line("?", question, -1, most, false));
    return [
      element("h2", { class: "verdict" }, words.verdict(verdict.on.map(numbered), verdict.either, question !== null)),
      verdict.on.length ? element("p", { class: "scope" }, this.likelihood(found, words)) : "",
      list,
      element("p", { class: "note" }, words.lossNote),
      found.method === "gradient" ? "" : element("p", { class: "note" }, words.copied(printable(found.why))),
    ];
  }

  likelihood({ verdict, sources, together }, words) {
    if (verdict.either) return words.eitherIs(times(-together));
    return verdict.on.map((place) => words.withoutIs(numbered(place), times(lossOf(sources[place])))).join(words.semicolon);
  }

  line(sign, source, number, most, isNamed) {
    const bar = element("i", { class: "share" });
    bar.style.width = `${most > 0 ? Math.min(100, Math.max(0, (100 * lossOf(source)) / most)) : 0}%`;
    const isKnown = source.effect !== null;
    const go = () => {
      const isSame = this.lit === number;
      this.change({ lit: isSame ? null : number });
      if (!isSame) this.on.go(this.places().indexOf(number));
    };
    return element(
      "li",
      { class: isNamed ? "is-named" : null },
      element("span", { class: "sign" }, sign),
      element("b", { class: isKnown ? null : "is-estimate" }, `${isKnown ? "" : "≈"}${figure(lossOf(source))}`),
      element("span", { class: "track" }, bar),
      element(
        "button",
        { class: "name", "aria-pressed": String(this.lit === number), onclick: go },
        printable(source.text.replace(/\s+/g, " ").trim()),
      ),
    );
  }

  change(changes) {
    Object.assign(this, changes);
    this.on.changed();
  }
}

const figure = (loss) => loss.toFixed(2).replace("-", "−");

// exp(nats), rounded
function times(nats) {
  if (nats < 14) return Math.round(Math.exp(nats)).toLocaleString("en");
  return `10${String(Math.round(nats / Math.LN10)).replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit])}`;
}
