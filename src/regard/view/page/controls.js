// The line above the text: what is read, how it is grouped, and how the page looks.

import { element, keepingFocus, select } from "./dom.js";
import { NAMES } from "./language.js";
import { GRAINS } from "./units.js";

const THEMES = ["auto", "light", "dark"];

export function themeOf(wanted) {
  if (wanted === "light" || wanted === "dark") return wanted;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

export class Controls {
  constructor(view, viewer) {
    Object.assign(this, { view, viewer });
    this.box = element("header", { class: "controls" });
  }

  update() {
    const { view, viewer } = this;
    const { kind } = view;
    const sign = [view.language, kind?.kind, view.keyGrain, view.rowGrain, view.measure, view.reduce, view.apart, view.folded, view.asks, view.asksApart, viewer.wanted].join();
    if (sign === this.sign) return;
    this.sign = sign;
    keepingFocus(this.box, () => this.build());
  }

  build() {
    const { view, viewer } = this;
    const { kind, words, reading } = view;
    const choices = element("div", { class: "choices" });
    if (kind) {
      if (reading.kinds.length > 1) {
        const names = reading.kinds.map((each, index) => [String(index), nameOf(each, words)]);
        const enter = (index) => viewer.reader.enter(Number(index));
        choices.append(labelled(words.kindLabel, names, String(reading.kinds.indexOf(kind)), enter));
      }
      const grains = GRAINS.map((grain) => [grain, words.grain[grain]]);
      const [input, output] = viewer.reader.parts();
      const label = output ? words.grainOf(input.label) : words.grainLabel;
      choices.append(labelled(label, grains, view.keyGrain, (keyGrain) => viewer.set({ keyGrain })));
      if (output) {
        choices.append(labelled(words.grainOf(output.label), grains, view.rowGrain, (ownRowGrain) => viewer.set({ ownRowGrain })));
      }
      if (kind.measures.length > 1) {
        const measures = kind.measures.map((name) => [name, view.named(name)]);
        choices.append(labelled(words.measureLabel, measures, view.measure, (measure) => viewer.set({ measure })));
      }
      if (kind.heads > 1) {
        const reductions = Object.entries(words.reduce);
        choices.append(labelled(words.reduceLabel, reductions, view.reduce, (reduce) => viewer.set({ reduce })));
      }
      if (kind.within) {
        const box = element("input", { type: "checkbox", checked: view.apart, onchange: () => viewer.set({ apart: box.checked }) });
        choices.append(element("label", { class: "check" }, box, words.apart));
      }
      if (view.asks) {
        const box = element("input", { type: "checkbox", checked: view.asksApart, onchange: () => viewer.set({ asksApart: box.checked }) });
        choices.append(element("label", { class: "check" }, box, words.asksApart));
      }
      if (kind.regions.isChat) {
        const box = element("input", { type: "checkbox", checked: view.folded, onchange: () => viewer.fold(box.checked) });
        choices.append(element("label", { class: "check" }, box, words.folded));
      }
    }
    const theme = (wanted) => {
      viewer.wanted = wanted;
      viewer.set({ theme: themeOf(wanted) });
    };
    this.box.replaceChildren(
      element("h1", {}, reading.model),
      choices,
      element(
        "div",
        { class: "looks" },
        select(words.language, Object.entries(NAMES), view.language, (language) => viewer.speak(language)),
        select(words.theme, THEMES.map((name) => [name, words[name]]), viewer.wanted, theme),
      ),
    );
  }
}

function labelled(label, options, chosen, choose) {
  return element("label", {}, element("span", {}, label), select(label, options, chosen, choose));
}

export function nameOf({ kind, query, canvases, track }, words) {
  if (track && kind !== "decoder") return kind === "cross" ? words.kindOnSound : words.kindInSound;
  if (kind === "cross" && canvases.length) return words.kindOnImage;
  return kind === "decoder" && query === "target" ? words.kindOfTarget : words.kind[kind];
}
