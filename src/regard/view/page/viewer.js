// The viewer: a page, or a cell of a notebook, in which a reading is looked at. The model is anywidget's.

import { About } from "./about.js";
import { renderAtlas } from "./atlas.js";
import { Controls, themeOf } from "./controls.js";
import { element } from "./dom.js";
import { FileModel, readDocument } from "./file_host.js";
import { Heatmap } from "./heatmap.js";
import { chosen } from "./language.js";
import { renderLadder } from "./ladder.js";
import { Lines } from "./lines.js";
import { HeadMap } from "./map.js";
import { Panels } from "./panels.js";
import { isPictured } from "./pictured.js";
import { PicturePanel } from "./picture_panel.js";
import { Reading } from "./reading.js";
import { Reader } from "./reader.js";
import { Removals } from "./removals.js";
import { Sources } from "./sources.js";
import { SpeechPanel } from "./speech_panel.js";
import { Summary } from "./summary.js";
import { Numbers } from "./table.js";
import { View } from "./view.js";
import { Why } from "./why.js";

// as in the style sheet
const NARROW = 760;

class Viewer {
  constructor(model, el) {
    const language = chosen(model.get("lang"));
    this.view = new View(new Reading(model), { language, theme: themeOf(model.get("theme")) });
    this.wanted = model.get("theme") ?? "auto";
    this.root = element("div", { class: "regard-view", lang: language, tabindex: "-1" });
    el.append(this.root);
    const { view } = this;
    const pinRow = (row) => this.pin(view.matrix.rows[row].tokens[0]);
    const mark = (span) => this.mark(span);
    const changed = () => this.later();
    this.summary = new Summary(view, { mark, row: pinRow });
    this.sources = new Sources(view, { go: (token) => this.show(token), changed });
    this.removals = new Removals(view, { mark, home: () => this.reader.spines[0].scroller, changed });
    this.why = new Why(view, { choose: (changes) => this.choose(changes), changed });
    this.controls = new Controls(view, this);
    this.reader = new Reader(view, this);
    this.map = new HeadMap(view, { choose: (heads) => this.set({ heads }) });
    this.heatmap = new Heatmap(view, { row: pinRow });
    this.lines = new Lines(view, { row: pinRow });
    this.pictures = new PicturePanel(view, (changes) => this.set(changes));
    this.speech = new SpeechPanel(view, (changes) => this.set(changes));
    this.numbers = new Numbers(view);
    this.panels = new Panels(view, this);
    this.about = new About(view);
    this.main = element("main", {}, this.reader.box, this.panels.box);
    this.root.append(this.controls.box, this.main, this.about.box);
    // in a page of its own keys are heard wherever the focus is
    const isPage = model instanceof FileModel && !model.get("embedded");
    (isPage ? document : this.root).addEventListener("keydown", (event) => this.key(event));
    model.on("change:lang", () => this.speak(chosen(model.get("lang"))));
    this.watch();
    this.reader.build();
    this.set({});
  }

  watch() {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => this.wanted === "auto" && this.set({ theme: themeOf("auto") });
    const print = () => {
      this.before = this.view.theme;
      this.set({ theme: "light" });
      this.frame();
      this.reader.drawAll();
    };
    const printed = () => this.set({ theme: this.before });
    dark.addEventListener("change", follow);
    addEventListener("beforeprint", print);
    addEventListener("afterprint", printed);
    // sizes are asked for once, since asking makes the browser lay out the page
    const observer = new ResizeObserver(() => {
      this.view.height = this.root.clientHeight;
      this.view.isNarrow = this.root.clientWidth <= NARROW;
      this.view.asideWidth = this.panels.box.clientWidth;
      this.later();
    });
    observer.observe(this.panels.box);
    observer.observe(this.root);
    this.close = () => {
      dark.removeEventListener("change", follow);
      removeEventListener("beforeprint", print);
      removeEventListener("afterprint", printed);
      observer.disconnect();
      this.pictures.observer.disconnect();
      this.speech.close();
      clearInterval(this.timer);
    };
  }

  // change what is chosen; the page follows in the next frame
  set(changes) {
    Object.assign(this.view, changes);
    // one place is marked, in the text or in a picture
    if (changes.span) this.view.region = null;
    if (changes.region) this.view.span = null;
    this.load();
    this.later();
  }

  later() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.frame();
    });
  }

  frame() {
    const { view } = this;
    view.derive();
    this.look(view.theme, view.language === "zh" ? "zh-Hans" : view.language);
    this.controls.update();
    this.about.update();
    if (!view.kind) {
      this.main.replaceChildren(element("p", { class: "note" }, view.words.nothing));
      return;
    }
    this.reader.update();
    this.panels.update();
    const ready = String(Boolean(view.current.units));
    if (this.root.dataset.ready !== ready) this.root.dataset.ready = ready;
  }

  // set only where it differs: every part of the page is styled anew after that
  look(theme, lang) {
    if (this.root.dataset.theme !== theme) this.root.dataset.theme = theme;
    if (this.root.lang !== lang) this.root.lang = lang;
  }

  // one table after another, so that the page stays alive between them
  async load() {
    if (this.loading) return;
    this.loading = true;
    for (let wanted = this.view.missing(); wanted.length; wanted = this.view.missing()) {
      const layers = wanted.filter(({ layer }) => layer !== undefined).length;
      const count = this.view.kind.layers.length;
      this.view.progress = layers ? this.view.words.loading(count - layers + 1, count) : null;
      this.later();
      try {
        await wanted[0].run();
      } catch (error) {
        this.view.failure = this.view.words.failed(error.message);
        break;
      }
      if (layers) await new Promise((resolve) => setTimeout(resolve));
    }
    this.view.progress = null;
    this.loading = false;
    this.refine();
    this.later();
  }

  // of one head and one token the very numbers, where the model is at hand
  async refine() {
    const { view } = this;
    const { kind, heads, measure } = view;
    const token = view.pinned;
    if (!view.exact || heads?.size !== 1 || measure !== "weights" || token === null) return;
    const rows = view.rowsOf(view.rowUnits.span(view.rowUnits.of[token]));
    kind.exactly ??= new Set();
    const [number] = heads;
    const name = `${number} ${rows.join()}`;
    if (rows.length !== 1 || kind.exactly.has(name)) return;
    const [layer, head] = kind.place(number);
    const choice = view.choice;
    const answer = await view.reading.ask({ type: "exact", kind: kind.kind, layer: kind.layers[layer].layer, head, row: rows[0] });
    const { buffer, byteOffset, byteLength } = answer.view;
    kind.row(rows[0], choice).set(new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength)));
    kind.exactly.add(name);
    view.memory = {};
    this.later();
  }

  speak(language) {
    if (language === this.view.language) return;
    this.view.language = language;
    this.reader.build();
    this.set({});
  }

  mark(span) {
    const { kind } = this.view;
    if (!span || !isPictured(kind.looked, span[0])) {
      this.set({ span });
      if (span) this.show(span[0]);
      return;
    }
    const tokens = Array.from({ length: span[1] - span[0] }, (_, place) => span[0] + place);
    const image = kind.canvases.findIndex((canvas) => tokens.some((token) => canvas.patchOf.has(token)));
    // of a patch without a place only the text knows
    this.set(image < 0 ? { span } : { image, region: { image: kind.canvases[image].image, tokens } });
  }

  // a head and what looked, as one step
  choose({ heads, pinned }) {
    this.set({ heads, pinned, hover: null, span: null, region: null, walking: false });
    this.reader.reveal(pinned);
  }

  show(token) {
    this.reader.spines[0].scroller.scrollIntoView({ block: "nearest" });
    this.reader.reveal(token);
  }

  fold(folded) {
    this.set({ folded });
    this.reader.build();
  }

  pin(token) {
    this.set({ pinned: token, walking: false });
    this.reader.reveal(token);
  }

  // to the next unit that has rows, that way; from nothing to the first
  step(by) {
    const { view } = this;
    const rows = view.matrix?.rows ?? [];
    const token = view.pinned ?? view.hover;
    const now = token === null ? -1 : rows.findIndex(({ tokens }) => tokens[0] <= token && token < tokens[1]);
    const next = now < 0 ? (by > 0 ? 0 : rows.length - 1) : now + by;
    if (next < 0 || next >= rows.length) return false;
    const [pinned] = rows[next].tokens;
    this.set({ pinned, walking: true });
    this.reader.reveal(pinned);
    return true;
  }

  play() {
    const { view } = this;
    clearInterval(this.timer);
    if (this.timer) {
      this.timer = null;
      this.set({});
      return;
    }
    const rows = view.matrix?.rows ?? [];
    const last = rows[rows.length - 1]?.tokens;
    if (last && view.pinned !== null && view.pinned >= last[0]) this.set({ pinned: null });
    const walk = () => {
      if (this.step(1)) return;
      clearInterval(this.timer);
      this.timer = null;
      this.set({});
    };
    this.timer = setInterval(walk, 600);
    walk();
  }

  start() {
    this.set({ pinned: null, hover: null });
    this.step(1);
  }

  letGo() {
    getSelection()?.removeAllRanges();
    this.sources.lit = null;
    this.set({ pinned: null, hover: null, span: null, region: null, spot: null, walking: false });
  }

  key(event) {
    if (this.reader.find.opens(event)) {
      event.preventDefault();
      this.reader.find.open();
      return;
    }
    if (event.target.closest("select, input, summary") || event.altKey || event.ctrlKey || event.metaKey) return;
    const { view } = this;
    if (event.key === "Escape") this.letGo();
    else if (this.reader.key(event)) {
      // the input's own cursor moved
    } else if (event.key === "ArrowRight") this.step(1);
    else if (event.key === "ArrowLeft") this.step(-1);
    else if (event.key === "Home" && event.target.matches(".spine")) this.start();
    else if ((event.key === "Enter" || event.key === " ") && event.target.matches(".spine")) {
      if (view.pinned === null && view.hover !== null) this.pin(view.hover);
      else this.set({ pinned: null, walking: false });
    } else return;
    event.preventDefault();
  }
}

export function render({ model, el }) {
  const viewer = new Viewer(model, el);
  return () => viewer.close();
}

export default { render };

// in a file opened from disk the reading lies in the page itself
const place = document.querySelector("[data-regard-file]");
if (place) {
  const facts = await readDocument(place.dataset.regardFile);
  if (facts.format === "regard-ladder-1") {
    renderLadder(facts, place, render);
  } else if (facts.format === "regard-atlas-1") {
    renderAtlas(facts, place);
  } else {
    render({ model: new FileModel("reading", { header: facts, lang: place.dataset.lang || undefined }), el: place });
  }
}
