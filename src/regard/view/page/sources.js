// The passages that the answer rests on: the verdict, each passage with what its removal does, and marks in the prompt.

import { Asking } from "./asking.js";
import { element, keepingFocus, select } from "./dom.js";
import { figure, passage, times } from "./passage.js";
import { printable, shorten } from "./printable.js";
import { tokensOf } from "./units.js";

const NUMBERS = "①②③④⑤⑥⑦⑧⑨⑩";
const MOST = 6;
const GRAINS = ["sentences", "paragraphs", "turns", "documents", "words"];
// what a passage is split into
const FINER = { documents: "paragraphs", turns: "paragraphs", paragraphs: "sentences", sentences: "words" };

const numbered = (place) => NUMBERS[place] ?? `(${place + 1})`;
// how much less likely the answer is without it, in nats
const lossOf = ({ effect, estimate }) => -(effect ?? estimate);

export class Sources {
  // `on.go(token)` shows a place, `on.changed()` draws anew
  constructor(view, on) {
    Object.assign(this, { view, on, lit: null, isWhole: false, grain: "sentences" });
    this.asking = new Asking(view, on.changed);
    this.box = element("section", { class: "panel sources", "aria-live": "polite" });
  }

  get found() {
    return this.view.sources;
  }

  // of each token of the prompt which passage it is in, counted from 1, and 0 outside; −1 is the question
  places() {
    const { found, view } = this;
    if (!found) return null;
    if (this.of !== found) {
      const { sequence, prompt } = view.kind;
      this.of = found;
      this.passages = new Int32Array(prompt);
      const mark = (part, number) => this.passages.fill(number, ...tokensOf(sequence, part, prompt));
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
    const { view, found, asking } = this;
    const { kind, words } = view;
    this.box.hidden = !found && !this.canAsk();
    const { lit, isWhole, grain } = this;
    const state = [view.language, kind.kind, asking.isRunning, asking.told(words.seeking), lit, isWhole, grain, view.part];
    const sign = state.join("|");
    if (sign === this.sign && found === this.shown) return;
    Object.assign(this, { sign, shown: found });
    const form = this.canAsk() ? this.form(words) : [];
    keepingFocus(this.box, () => this.box.replaceChildren(...(found ? this.list(found, words) : []), ...form));
  }

  canAsk() {
    const { kind, live, reading } = this.view;
    return live && kind.sequence === reading.sequences.text && kind.prompt > 0 && kind.prompt < kind.regions.last;
  }

  form(words) {
    const { asking, found, view } = this;
    const told = element("p", { class: "note", role: "status" }, asking.told(words.seeking) || (found ? "" : words.sourcesHint));
    if (asking.isRunning) return [element("div", { class: "ask-row" }, asking.stop(), told)];
    const grains = GRAINS.map((grain) => [grain, words.passages[grain]]);
    return [
      this.nested(words),
      element(
        "div",
        { class: "ask-row" },
        element("button", { class: "act", onclick: () => this.ask() }, found ? words.sourcesAgain : words.sources),
        element("label", {}, element("span", {}, words.by), select(words.sourcesGrain, grains, this.grain, (grain) => this.change({ grain }))),
        element("span", { class: "part-name" }, words.ofPart(this.named(view.part))),
      ),
      told,
    ];
  }

  // from a passage to what it is made of, and back
  nested(words) {
    const { found, lit } = this;
    const finer = FINER[found?.asked.grain];
    const acts = [];
    if (found?.around) acts.push(element("button", { class: "act", onclick: () => this.goBack() }, words.backTo(words.passages[found.around.asked.grain])));
    if (lit > 0 && finer) {
      const go = () => this.ask({ ...found.asked, grain: finer, within: this.span(lit) });
      acts.push(element("button", { class: "act", onclick: go }, words.splitInto(words.passages[finer], numbered(lit - 1))));
    }
    return acts.length ? element("div", { class: "ask-row" }, ...acts) : "";
  }

  // the tokens of a passage, counted from 1
  span(number) {
    const places = this.places();
    return [places.indexOf(number), places.lastIndexOf(number) + 1];
  }

  goBack() {
    const { settings } = this.view.reading;
    settings.sources = settings.sources.around;
    this.change({ lit: null, isWhole: false });
  }

  named(part) {
    return part && `“${shorten(this.view.spanName(this.view.kind.sequence, part), 40)}”`;
  }

  async ask(asked = { grain: this.grain, of: this.view.part, within: null }) {
    const answer = await this.asking.ask({ type: "sources", ...asked });
    if (!answer) return;
    this.view.reading.settings.sources = answer.sources;
    this.change({ lit: null, isWhole: false });
  }

  list(found, words) {
    const { verdict, sources, question, asked } = found;
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
    const subject = this.named(asked.of) ?? words.thisAnswer;
    const name = asked.within && this.named(asked.within);
    return [
      name ? element("p", { class: "scope" }, words.within(name)) : "",
      element("h2", { class: "verdict" }, words.verdict(subject, verdict.on.map(numbered), verdict.either, question !== null)),
      // of more passages the list says it shorter
      [1, 2, 3].includes(verdict.on.length) ? element("p", { class: "scope" }, this.likelihood(found, words)) : "",
      this.bySentence(found, words),
      list,
      element("p", { class: "note" }, words.lossNote(this.named(asked.of) ?? words.theAnswer)),
      found.method === "gradient" ? "" : element("p", { class: "note" }, words.copied(printable(found.why))),
    ];
  }

  // of an answer of several sentences what each rests on, where that is known
  bySentence({ sentences = [], question }, words) {
    if (sentences.length < 2) return "";
    const lines = sentences.map(({ text, verdict: { on, either } }) => {
      const name = `“${printable(shorten(text.replace(/\s+/g, " ").trim(), 60))}”`;
      return element("li", {}, words.verdict(name, on.map(numbered), either, question !== null));
    });
    return element("ul", { class: "by-sentence" }, ...lines);
  }

  likelihood({ verdict, sources, together }, words) {
    if (verdict.either) return words.eitherIs(times(-together));
    return verdict.on.map((place) => words.withoutIs(numbered(place), times(lossOf(sources[place])))).join(words.semicolon);
  }

  line(sign, source, number, most, isNamed) {
    const isLit = this.lit === number;
    const go = () => {
      this.change({ lit: isLit ? null : number });
      if (!isLit) this.on.go(this.places().indexOf(number));
    };
    const { text, effect } = source;
    return passage({ sign, loss: lossOf(source), most, isKnown: effect !== null, isNamed, isLit, text, go });
  }

  change(changes) {
    Object.assign(this, changes);
    this.on.changed();
  }
}
