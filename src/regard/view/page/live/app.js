// The page: one number for three sections, words of one's own for another, a GPT; all of it computed here.

import { element, select } from "../dom.js";
import { palette } from "../colours.js";
import { chosen as preferred } from "../language.js";
import { CrossSection } from "./cross_section.js";
import { Exercise } from "./exercises.js";
import { GPT } from "./gpt.js";
import { english, french, numberOf } from "./numbers.js";
import { RNNTranslator } from "./rnn.js";
import { SearchSection } from "./search_section.js";
import { SelfSection } from "./self_section.js";
import { Tokenizer } from "./tokenizer.js";
import { Transformer } from "./transformer.js";
import { NAMES, TranslateSection } from "./translate_section.js";
import { translate } from "./translating.js";
import { fromBase64, readWeights } from "./weights.js";
import { EN } from "./words_en.js";
import { ZH } from "./words_zh.js";
import { WriteSection } from "./write_section.js";

const WORDS = { en: EN, zh: ZH };
const LANGUAGES = [["en", "English"], ["zh", "中文"]];
const KINDS = { rnn: RNNTranslator, bahdanau: RNNTranslator, transformer: Transformer, gpt: GPT };
const COLD = { light: [[253, 252, 250], [38, 110, 178]], dark: [[33, 31, 29], [96, 165, 226]] };
const FIRST = "662,607,015,662,607";

const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

export class App {
  constructor(read) {
    Object.assign(this, { read, models: {}, typed: FIRST, asked: null, wantedTheme: "auto" });
    Object.assign(this, { numberOf, spelt: (number) => [english(number), french(number)], languages: [EN, ZH] });
    this.language = preferred(new URLSearchParams(location.hash.slice(1)).get("lang"));
    this.translate = new TranslateSection(this);
    this.search = new SearchSection(this);
    this.self = new SelfSection(this);
    this.cross = new CrossSection(this);
    this.write = new WriteSection(this);
    const width = () => this.model("bahdanau").tensors["decoder.attention.key_proj.weight"].columns;
    const tokens = () => this.asked.translations[1].source.length;
    this.parts = [
      this.translate,
      new Exercise(this, "vector", () => tokens() * width(), () => [2 * this.model("rnn").config.hidden_dim, width(), tokens()]),
      this.search,
      new Exercise(this, "additive", () => 2 * Math.tanh(2) + 3 * Math.tanh(0)),
      this.self,
      new Exercise(this, "scale", () => 3),
      new Exercise(this, "mask", () => 1 / (1 + Math.E)),
      new Exercise(this, "merge", () => 16 * 12),
      this.cross,
      this.write,
    ];
    this.head = element("header", { class: "top" });
    this.foot = element("footer");
    this.root = element("div", { class: "live" }, this.head, element("main", {}, ...this.parts.map(({ root }) => root)), this.foot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
    new ResizeObserver(() => this.redraw()).observe(this.root);
  }

  async start() {
    this.speak(this.language);
    document.body.prepend(this.root);
    await frame();
    this.type(this.typed);
    await frame();
    this.self.begin();
    await frame();
    this.write.begin();
    this.isReady = true;
    document.documentElement.dataset.ready = "true";
  }

  /** Everything in this language, with what was typed and found as it is. */
  speak(language) {
    Object.assign(this, { language, words: WORDS[language] });
    document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
    const { words } = this;
    const themes = ["auto", "light", "dark"].map((name) => [name, words.themes[name]]);
    this.head.replaceChildren(
      element("div", { class: "looks" },
        element("strong", {}, "Regard"),
        select(words.language, LANGUAGES, language, (name) => this.speak(name)),
        select(words.theme, themes, this.wantedTheme, (name) => { this.wantedTheme = name; this.paint(); })),
      element("h1", {}, words.title),
      element("p", { class: "lead" }, words.lead),
      element("nav", { "aria-label": words.contents }, ...["translate", "search", "self", "cross", "write"].map((name, place) =>
        element("a", { href: `#${name}` }, `${place + 1} ${words[name].short}`))),
    );
    this.foot.replaceChildren(element("p", {}, words.foot));
    for (const part of this.parts) part.build();
    this.paint();
    if (this.isReady) for (const part of this.parts) part.show();
  }

  paint() {
    const isDark = this.wantedTheme === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : this.wantedTheme === "dark";
    const theme = isDark ? "dark" : "light";
    document.documentElement.dataset.theme = theme;
    this.palette = { ...palette(theme), cold: coldRamp(...COLD[theme]) };
    if (!this.isReady) return;
    this.redraw();
    this.self.show();
  }

  redraw() {
    if (this.isReady) for (const part of this.parts) part.redraw?.();
  }

  bytes(name) {
    return fromBase64(this.read(name));
  }

  /** A model of the page, unpacked where it is first asked for. */
  model(name) {
    return (this.models[name] ??= this.unpacked(name));
  }

  unpacked(name) {
    const { tensors, metadata } = readWeights(this.bytes(name));
    const [config, tokenizer, facts] = ["config", "tokenizer", "facts"].map((key) => JSON.parse(metadata[key]));
    const model = new KINDS[name](tensors, config, new Tokenizer(tokenizer));
    return Object.assign(model, { facts, translate: (text, change) => translate(model, text, change) });
  }

  translation(name, text) {
    return this.model(name).translate(text);
  }

  /** Digits become words; words are taken as they are. */
  type(typed) {
    this.typed = typed;
    const number = numberOf(typed);
    const source = number === null ? typed.trim().replace(/\s+/g, " ") : english(number);
    const asked = { source, number, reference: number === null ? null : french(number) };
    if (number === null && /^[\d\s,._]+$/.test(source)) asked.fault = "digits";
    else if (!source) asked.fault = "empty";
    else if (NAMES.some((name) => this.model(name).tokenizer.encode(source).length >= this.model(name).config.max_length)) asked.fault = "long";
    else {
      asked.translations = NAMES.map((name) => {
        const start = performance.now();
        return { ...this.translation(name, source), milliseconds: performance.now() - start };
      });
    }
    this.asked = asked;
    for (const part of this.parts) if (part !== this.self && part !== this.write) part.show();
  }
}

function coldRamp(from, to) {
  return Array.from({ length: 64 }, (_, place) => `rgb(${from.map((start, axis) => Math.round(start + (place / 63) * (to[axis] - start))).join()})`);
}
