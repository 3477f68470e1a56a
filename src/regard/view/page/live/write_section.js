// Section 5: a GPT that writes letter by letter, and what each letter was written while looking at.

import { element, select } from "../dom.js";
import { drawn, probabilities } from "./gpt.js";
import { shade } from "./matrix.js";
import { Likely, Stepper, seen, share } from "./parts.js";
import { EOS } from "./tokenizer.js";

// letters that are read again where the context is full
const KEPT = 64;
const LONGEST = 2000;

export class WriteSection {
  constructor(app) {
    this.app = app;
    this.root = element("section", { id: "write", "aria-labelledby": "write-title" });
    Object.assign(this, { letters: [], place: null, pick: "mean", temperature: 0.8, prompt: "It is a truth universally " });
  }

  begin() {
    this.model = this.app.model("gpt");
    this.showHeads();
    this.restart();
  }

  build() {
    const { words } = this.app;
    const own = words.write;
    this.field = element("input", { id: "prompt", value: this.prompt, maxlength: 100, autocomplete: "off" });
    this.field.addEventListener("input", () => { this.prompt = this.field.value; this.restart(); });
    this.play = element("button", { class: "primary", onclick: () => this.toggle() });
    const one = element("button", { onclick: () => { this.pause(); this.write(); } }, own.one);
    const again = element("button", { onclick: () => this.restart() }, own.again);
    const heat = element("input", { id: "temperature", type: "range", min: 0.2, max: 1.4, step: 0.1, value: this.temperature });
    const told = element("output", { for: "temperature" }, this.temperature.toFixed(1));
    heat.addEventListener("input", () => { this.temperature = heat.valueAsNumber; told.textContent = this.temperature.toFixed(1); this.redraw(); });
    this.heads = element("span");
    this.text = element("p", { class: "written", lang: "en" });
    this.spans = [];
    this.text.addEventListener("click", ({ target }) => {
      const place = this.spans.indexOf(target);
      if (place >= 0) { this.pause(); this.go(place); }
    });
    this.stepper = new Stepper(words, own.stepLabel, (place) => { this.pause(); this.go(place); });
    this.likely = new Likely(own.likely);
    this.readout = element("p", { class: "note" });
    this.root.replaceChildren(
      element("h2", { id: "write-title" }, own.title),
      element("p", { class: "intro" }, own.intro),
      element("div", { class: "ask" }, element("label", { for: "prompt" }, own.ask), this.field),
      element("div", { class: "picks" }, this.play, one, again, element("label", { for: "temperature" }, own.temperature), heat, told, this.heads),
      this.text,
      this.stepper.box,
      this.readout,
      element("h3", {}, own.likely), element("p", { class: "note" }, own.likelyNote), this.likely.box,
    );
    this.showHeads();
    this.sayPlay();
  }

  showHeads() {
    if (!this.model) return;
    const own = this.app.words.write;
    const { num_layers: layers, num_heads: heads } = this.model.config;
    const options = [["mean", own.mean]];
    for (let layer = 0; layer < layers; layer++) for (let head = 0; head < heads; head++) options.push([`${layer}.${head}`, own.oneHead(layer + 1, head + 1)]);
    this.heads.replaceChildren(element("label", {}, own.looks, select(own.looks, options, this.pick, (pick) => { this.pick = pick; this.redraw(); })));
  }

  sayPlay() {
    this.play.textContent = this.timer ? this.app.words.write.pause : this.app.words.write.write;
  }

  restart() {
    this.pause();
    this.letters = [];
    this.start = 0;
    this.writer = this.model.begin();
    // the token that stands before every text
    this.read(EOS, "");
    for (const letter of this.prompt) this.read(this.model.tokenizer.encode(letter)[0], letter);
    this.place = null;
    this.show();
  }

  /** One token more: what was looked at from it, and what may follow. */
  read(token, text) {
    if (this.writer.isFull) this.slide();
    this.letters.push({ token, text, start: this.start, ...this.writer.step(token) });
  }

  /** Past its context the model reads the last letters anew, from position 0. */
  slide() {
    const kept = this.letters.slice(-KEPT);
    this.writer = this.model.begin();
    this.start = this.letters.length - KEPT;
    for (const { token } of kept) this.writer.step(token);
  }

  write() {
    const { model } = this;
    const id = drawn(probabilities(this.letters.at(-1).logits, this.temperature), Math.random());
    this.read(id, model.tokenizer.name(id));
    this.place = null;
    this.show();
    if (this.letters.length >= LONGEST) this.pause();
  }

  toggle() {
    if (this.timer) return this.pause();
    const next = () => {
      this.write();
      if (this.timer) this.timer = setTimeout(next, 45);
    };
    this.timer = setTimeout(next);
    this.sayPlay();
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (this.play) this.sayPlay();
  }

  go(place) {
    this.place = place < this.letters.length ? place : null;
    this.redraw();
  }

  show() {
    while (this.spans.length > this.letters.length) this.spans.pop().remove();
    this.letters.forEach(({ text }, place) => {
      const shown = place === 0 ? "▸" : text;
      if (!this.spans[place]) {
        this.spans.push(element("span"));
        this.text.append(this.spans[place]);
      }
      if (this.spans[place].textContent !== shown) this.spans[place].textContent = shown;
    });
    this.redraw();
  }

  /** The weights of a letter: those of the letter before it, whose logits chose it. */
  redraw() {
    if (!this.letters.length || !this.spans.length) return;
    const { app, letters, spans } = this;
    const own = app.words.write;
    const last = letters.length - 1;
    // the place of the letter that looks; after the last one, of the letter that is to be written
    const query = this.place === null ? last : Math.max(0, this.place - 1);
    const { heads, start, logits } = letters[query];
    const weights = this.pick === "mean" ? mean(heads.flat()) : heads[this.pick[0]][this.pick[2]];
    const most = Math.max(...weights);
    spans.forEach((span, place) => {
      const weight = weights[place - start] ?? 0;
      if (place <= query && weight > 0) shade(span, weight, app.palette, most);
      else span.removeAttribute("style");
      span.className = place === this.place ? "is-chosen" : "";
    });
    const text = this.place === null ? own.next : seen(letters[this.place].text || "▸");
    this.stepper.show(this.place ?? letters.length, letters.length + 1, own.step(this.place ?? letters.length, letters.length, text));
    const best = weights.indexOf(most);
    this.readout.textContent = own.readout(text, seen(letters[start + best].text || "▸"), share(most));
    const chosen = this.place === null ? null : letters[this.place].token;
    this.likely.show(probabilities(logits, this.temperature), (id) => this.model.tokenizer.name(id), chosen);
  }
}

function mean(rows) {
  const sum = new Float32Array(rows[0].length);
  for (const row of rows) row.forEach((weight, place) => (sum[place] += weight / rows.length));
  return sum;
}
