// Section 2: the soft search of Bahdanau's attention, step by step, with weights that the reader may change.

import { element } from "../dom.js";
import { softmax, strongest } from "./numerics.js";
import { figure, shade, write } from "./matrix.js";
import { Grid, Likely, Stepper, drawStrip, productByHand, seen, softmaxByHand } from "./parts.js";
import { common } from "./numbers.js";

export class SearchSection {
  constructor(app) {
    this.app = app;
    this.root = element("section", { id: "search", "aria-labelledby": "search-title" });
    this.forget();
  }

  forget() {
    // a step at which much depends on one weight
    Object.assign(this, { place: 4, edits: new Map(), hidden: new Set(), found: null });
  }

  build() {
    const own = this.app.words.search;
    this.stepper = new Stepper(this.app.words, own.stepLabel, (place) => this.go(place));
    this.grid = new Grid(own.gridLabel, (place) => this.go(place));
    this.likely = new Likely(own.likely);
    this.body = element("tbody");
    const heads = [own.token, own.score, own.weight, own.change, own.hide].map((name) => element("th", { scope: "col" }, name));
    this.scoreLine = element("p", { class: "hand" });
    this.softmaxLine = element("p", { class: "hand" });
    this.contextLine = element("p", { class: "hand" });
    this.strip = element("canvas", { role: "img", "aria-label": own.contextLabel });
    this.before = element("dd", { lang: "fr" });
    this.after = element("dd", { lang: "fr", "aria-live": "polite" });
    this.reset = element("button", { onclick: () => { this.edits.clear(); this.hidden.clear(); this.run(); } }, own.reset);
    this.root.replaceChildren(
      element("h2", { id: "search-title" }, own.title),
      element("p", { class: "intro" }, own.intro),
      this.stepper.box,
      element("dl", { class: "versions" }, element("dt", {}, own.before), this.before, element("dt", {}, own.after), this.after),
      this.reset,
      element("div", { class: "two" },
        element("div", {}, element("h3", {}, own.tableTitle), element("p", { class: "note" }, own.tableNote),
          element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": own.tableTitle },
            element("table", { class: "weights" }, element("thead", {}, element("tr", {}, ...heads)), this.body))),
        element("div", {},
          element("h3", {}, own.scoreTitle), this.scoreLine,
          element("h3", {}, own.softmaxTitle), this.softmaxLine,
          element("h3", {}, own.contextTitle), this.contextLine, element("div", { class: "strip" }, this.strip),
          element("h3", {}, own.likely), this.likely.box)),
      element("h3", {}, own.gridTitle),
      element("p", { class: "note" }, own.gridNote),
      this.grid.box,
    );
  }

  /** A new source: nothing is changed yet. */
  show() {
    if (this.source !== this.app.asked.source) this.forget();
    this.source = this.app.asked.source;
    if (this.app.asked.translations) this.run();
  }

  run() {
    const model = this.app.model("bahdanau");
    const isChanged = this.edits.size || this.hidden.size;
    this.own = this.app.asked.translations[1];
    this.found = isChanged ? model.translate(this.source, (step, weights) => this.changed(step, weights)) : this.own;
    this.place = Math.min(this.place, this.found.steps.length - 1);
    this.names = this.found.source.map((id) => seen(model.tokenizer.name(id)));
    const name = (id) => model.tokenizer.name(id);
    this.written = this.found.steps.map(({ token }) => seen(name(token)));
    this.before.textContent = this.own.text;
    this.after.replaceChildren(...common(this.found.text, this.own.text).flatMap(([word, same]) => [same ? word : element("mark", {}, word), " "]));
    this.reset.disabled = !isChanged;
    this.redraw();
  }

  /** The weights with the reader's: those left alone share what is left, in proportion. */
  changed(step, weights) {
    const fixed = new Map([...this.hidden].map((key) => [key, 0]));
    for (const [key, weight] of this.edits.get(step) ?? []) fixed.set(key, weight);
    if (!fixed.size) return weights;
    let [taken, free] = [0, 0];
    weights.forEach((weight, key) => (fixed.has(key) ? (taken += fixed.get(key)) : (free += weight)));
    const scale = taken > 1 ? 1 / taken : 1;
    const rest = free > 0 ? Math.max(0, 1 - taken) / free : 0;
    return weights.map((weight, key) => (fixed.has(key) ? fixed.get(key) * scale : weight * rest));
  }

  edit(key, weight) {
    const edits = this.edits.get(this.place) ?? new Map();
    this.edits.set(this.place, edits.set(key, weight));
    this.run();
  }

  go(place) {
    this.place = place;
    this.redraw();
  }

  hide(key, isHidden) {
    if (isHidden) this.hidden.add(key);
    else this.hidden.delete(key);
    this.run();
  }

  redraw() {
    if (!this.found) return;
    const { app, place, names } = this;
    const own = app.words.search;
    const model = app.model("bahdanau");
    const step = this.found.steps[place];
    const { scores, weights: shares } = step;
    this.stepper.show(place, this.found.steps.length, own.step(place + 1, this.found.steps.length, this.written[place]));
    this.showRows(scores, shares);
    const [[best]] = strongest(shares, 1);
    const { decoder } = this.found;
    const turned = decoder.prepared[best].map((value, dim) => Math.tanh(value + step.query[dim]));
    this.scoreLine.textContent = productByHand(own.scoreOf(names[best]), decoder.score, turned, scores[best]);
    this.softmaxLine.textContent = shares === step.own ? softmaxByHand(own.weightOf(names[best]), scores, shares, best) : own.yours;
    const parts = strongest(shares, 3).map(([key, weight]) => `${figure(weight)} · ${own.stateOf(names[key])}`);
    const numbers = [...step.context.slice(0, 4)].map(figure).join(", ");
    this.contextLine.textContent = `${parts.join(" + ")} + … = (${numbers}, …)`;
    drawStrip(this.strip, step.context, app.palette, step.context.length / 4);
    this.likely.show(softmax(step.logits), (id) => model.tokenizer.name(id), step.token);
    const weights = () => this.found.steps.map((each) => each.weights);
    this.grid.show(this.found, { rows: this.written, columns: names, weights, chosen: place, palette: app.palette });
  }

  showRows(scores, weights) {
    const own = this.app.words.search;
    const sign = this.names.join("\u0000") + this.app.language;
    if (sign !== this.sign || !this.rows?.[0].line.isConnected) {
      this.sign = sign;
      this.rows = this.names.map((name, key) => {
        const slider = element("input", { type: "range", min: 0, max: 1, step: 0.01, "aria-label": own.changeOf(name) });
        slider.addEventListener("input", () => this.edit(key, slider.valueAsNumber));
        slider.addEventListener("change", () => { this.rows[key].place = slider.value; });
        const box = element("input", { type: "checkbox", "aria-label": own.hideOf(name) });
        box.addEventListener("change", () => this.hide(key, box.checked));
        const [score, weight] = [element("td", { class: "number" }), element("td", { class: "number" })];
        const line = element("tr", {}, element("th", { scope: "row" }, name), score, weight, element("td", {}, slider), element("td", {}, box));
        return { line, score, weight, slider, box };
      });
      this.body.replaceChildren(...this.rows.map(({ line }) => line));
    }
    const { palette } = this.app;
    this.rows.forEach((row, key) => {
      write(row.score, figure(scores[key]));
      if (write(row.weight, figure(weights[key])) || palette !== this.shownPalette) shade(row.weight, weights[key], palette);
      const place = weights[key].toFixed(2);
      // the slider in the reader's hand stays where it is
      if (row.slider !== document.activeElement && row.place !== place) row.slider.value = row.place = place;
      const isHidden = this.hidden.has(key);
      if (row.box.checked !== isHidden) row.box.checked = isHidden;
      row.line.classList.toggle("is-changed", isHidden || (this.edits.get(this.place)?.has(key) ?? false));
    });
    this.shownPalette = palette;
  }
}
