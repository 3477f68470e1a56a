// Section 1: three translators on one number, and how far each gets, digit by digit.

import { element } from "../dom.js";
import { drawStrip } from "./parts.js";
import { common, english, french, MOST_DIGITS } from "./numbers.js";

const EXAMPLES = [42, 1984, 662607015, 662607015662607, 999888777666555];
export const NAMES = ["rnn", "bahdanau", "transformer"];

export class TranslateSection {
  constructor(app) {
    this.app = app;
    this.root = element("section", { id: "translate", "aria-labelledby": "translate-title" });
  }

  build() {
    const { words } = this.app;
    const own = words.translate;
    this.field = element("input", { id: "number", value: this.app.typed, maxlength: 160, autocomplete: "off", spellcheck: "false" });
    this.field.addEventListener("input", () => this.app.type(this.field.value));
    const pick = (number) => {
      this.field.value = number.toLocaleString("en");
      this.app.type(this.field.value);
    };
    const anew = () => {
      const digits = 1 + Math.floor(Math.random() * MOST_DIGITS);
      pick(Math.floor(10 ** (digits - 1) * (1 + 9 * Math.random())));
    };
    const chips = EXAMPLES.map((number) => element("button", { onclick: () => pick(number) }, number.toLocaleString("en")));
    this.source = element("p", { class: "source", lang: "en" });
    this.fault = element("p", { class: "fault", role: "alert" });
    this.cards = NAMES.map((name) => {
      const card = { text: element("p", { class: "translation", lang: "fr" }), verdict: element("p", { class: "verdict" }), facts: element("p", { class: "facts" }) };
      card.box = element("article", { class: "card" }, element("h3", {}, words.models[name]), card.text, card.verdict, card.facts);
      return card;
    });
    this.reference = element("p", { class: "reference" });
    this.table = element("table", { class: "digits" });
    this.strip = element("canvas", { role: "img", "aria-label": own.vectorLabel });
    this.vector = element("p", { class: "note" });
    this.root.replaceChildren(
      element("h2", { id: "translate-title" }, own.title),
      element("p", { class: "intro" }, own.intro),
      element("div", { class: "ask" }, element("label", { for: "number" }, own.ask), this.field,
        element("div", { class: "chips" }, ...chips, element("button", { onclick: anew }, own.random))),
      this.fault,
      this.source,
      element("div", { class: "cards", "aria-live": "polite" }, ...this.cards.map(({ box }) => box)),
      this.reference,
      element("h3", {}, own.digits),
      element("p", { class: "note" }, own.digitsNote),
      element("div", { class: "matrix", tabindex: 0, role: "group", "aria-label": own.digits }, this.table),
      element("h3", {}, own.vector),
      this.vector,
      element("div", { class: "strip" }, this.strip),
    );
  }

  show() {
    const { app } = this;
    const { words, asked } = app;
    const own = words.translate;
    this.fault.textContent = asked.fault ? words.faults[asked.fault] : "";
    this.source.textContent = asked.source;
    this.cards.forEach((card, place) => {
      const found = asked.translations?.[place];
      card.text.replaceChildren(...(found ? marked(found.text, asked.reference) : []));
      card.verdict.textContent = found ? verdict(found.text, asked.reference, own) : "";
      card.verdict.className = `verdict ${asked.reference === null || !found ? "" : found.text === asked.reference ? "is-right" : "is-wrong"}`;
      const { facts } = app.model(NAMES[place]);
      card.facts.textContent = own.facts(facts.parameters.toLocaleString("en"), (100 * facts.exact).toFixed(1), facts.count.toLocaleString("en"), found ? found.milliseconds.toFixed(0) : "–");
    });
    this.reference.replaceChildren(...(asked.reference === null ? [own.noReference] : [`${own.reference} `, element("span", { lang: "fr" }, asked.reference)]));
    if (asked.translations) this.showVector(asked.translations[0]);
    this.showDigits();
  }

  showVector({ decoder, source }) {
    const { app } = this;
    this.vector.textContent = app.words.translate.vectorNote(decoder.last.length, source.length);
    drawStrip(this.strip, decoder.last, app.palette, decoder.last.length / 4);
  }

  redraw() {
    if (this.app.asked?.translations) this.showVector(this.app.asked.translations[0]);
  }

  /** The number's first digit, its first two, and so on: one translation after the other, without holding up the page. */
  showDigits() {
    const { app } = this;
    const { words, asked } = app;
    const own = words.translate;
    const digits = asked.number === null ? "" : String(asked.number);
    const heads = [...digits].map((_, place) => {
      const start = Number(digits.slice(0, place + 1));
      const pick = () => {
        this.field.value = start.toLocaleString("en");
        app.type(this.field.value);
      };
      const count = english(start).split(" ").length;
      return element("th", { scope: "col" }, element("button", { onclick: pick, title: english(start), "aria-label": `${count}: ${english(start)}` }, count));
    });
    const cells = NAMES.map(() => heads.map(() => element("td", {}, "·")));
    const rows = NAMES.map((name, place) => element("tr", {}, element("th", { scope: "row" }, words.models[name]), ...cells[place]));
    this.table.replaceChildren(element("thead", {}, element("tr", {}, element("th", { scope: "col" }, own.wordCount), ...heads)), element("tbody", {}, ...rows));
    const queue = heads.flatMap((_, place) => NAMES.map((_, row) => [row, place]));
    const next = () => {
      if (app.asked !== asked || !queue.length || !this.table.contains(cells[0][0])) return;
      const [row, place] = queue.shift();
      const start = Number(digits.slice(0, place + 1));
      const isRight = app.translation(NAMES[row], english(start)).text === french(start);
      cells[row][place].textContent = isRight ? "✓" : "✗";
      cells[row][place].className = isRight ? "is-right" : "is-wrong";
      cells[row][place].setAttribute("aria-label", isRight ? own.right : own.wrong);
      setTimeout(next);
    };
    setTimeout(next);
  }
}

/** Words of a translation; those that the reference has not, in its order, are marked. */
function marked(text, reference) {
  if (reference === null) return [text];
  return common(text, reference).flatMap(([word, isRight]) => [isRight ? word : element("mark", {}, word), " "]);
}

function verdict(text, reference, words) {
  if (reference === null) return "";
  if (text === reference) return `✓ ${words.right}`;
  const right = common(text, reference).filter(([, isRight]) => isRight).length;
  return `✗ ${words.wrongWords(text.split(" ").length - right, reference.split(" ").length - right)}`;
}
