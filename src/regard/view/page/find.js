// Find in the text, in all of it: the browser's own search sees only the lines that are in the page.

import { element, svg } from "./dom.js";
import { isPictured } from "./pictured.js";
import { before } from "./units.js";

export class Find {
  constructor(view, reader) {
    Object.assign(this, { view, reader, wanted: "", hits: [], at: 0 });
    this.box = element("search", { class: "find", hidden: true });
  }

  // in the language and the lines that are shown now
  build() {
    const { words } = this.view;
    const button = (sign, label, act) =>
      element("button", { class: "icon", title: label, "aria-label": label, onclick: act }, sign);
    this.input = element("input", {
      type: "text",
      value: this.wanted,
      placeholder: words.find,
      "aria-label": words.find,
      spellcheck: "false",
      dir: "auto",
      oninput: () => this.search(this.input.value),
      onkeydown: (event) => this.key(event),
    });
    this.count = element("span", { class: "count", role: "status" });
    this.box.replaceChildren(
      this.input,
      this.count,
      button("↑", words.findBack, () => this.go(-1)),
      button("↓", words.findOn, () => this.go(1)),
      button("×", words.findClose, () => this.close()),
    );
    this.opener = button("", words.find, () => this.open());
    const lens = svg("svg", { viewBox: "0 0 16 16", width: 13, height: 13, fill: "none", stroke: "currentColor", "stroke-width": 1.8 });
    lens.append(svg("circle", { cx: 6.5, cy: 6.5, r: 4.7 }), svg("path", { d: "M10 10l5 5" }));
    this.opener.append(lens);
    if (!this.box.hidden) this.search(this.wanted);
  }

  // pressed again in the field, Ctrl-F is the browser's
  opens({ key, ctrlKey, metaKey, altKey, shiftKey, target }) {
    if (altKey || !this.view.kind) return false;
    if (ctrlKey || metaKey) return key.toLowerCase() === "f" && !shiftKey && target !== this.input;
    return key === "/" && !target.closest("select, input, textarea");
  }

  open() {
    this.box.hidden = false;
    this.input.focus();
    this.input.select();
    this.search(this.input.value);
  }

  close() {
    const spine = this.hits[this.at]?.spine ?? this.reader.spines[0];
    this.box.hidden = true;
    this.search("");
    spine.scroller.focus({ preventScroll: true });
  }

  key(event) {
    // Enter may end what an input method composes
    if (event.isComposing) return;
    if (event.key === "Enter") this.go(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") this.close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  search(wanted) {
    const now = this.hits[this.at]?.place ?? 0;
    this.wanted = wanted;
    this.hits = wanted.trim() ? this.reader.spines.flatMap((spine, index) => this.places(spine, index)) : [];
    this.at = Math.max(0, this.hits.findIndex(({ place }) => place >= now));
    this.show();
  }

  places(spine, index) {
    const { sequence, from, to } = spine;
    const { text, starts, ends } = sequence;
    const words = this.wanted.split(/\s+/).map((word) => word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
    const found = [];
    if (from === to) return found;
    const start = starts[from];
    for (const match of text.slice(start, ends[to - 1]).matchAll(new RegExp(words.join("\\s+"), "giu"))) {
      const begin = start + match.index;
      const first = before(ends, begin + 1, from, to);
      const last = Math.max(first, before(starts, begin + match[0].length, from, to) - 1);
      let isHidden = first >= to;
      for (let token = first; token <= last; token++) isHidden ||= this.view.isFolded(token) || isPictured(sequence, token);
      if (!isHidden) found.push({ spine, first, last, place: index * 2 ** 32 + first });
    }
    return found;
  }

  go(by) {
    const { length } = this.hits;
    if (!length) return;
    this.at = (this.at + by + length) % length;
    this.show();
  }

  show() {
    const { hits, at, view, reader } = this;
    for (const spine of reader.spines) spine.marks = new Uint8Array(hits.length ? spine.to : 0);
    for (const { spine, first, last } of hits) spine.marks.fill(1, first, last + 1);
    const hit = hits[at];
    if (hit) {
      hit.spine.marks.fill(2, hit.first, hit.last + 1);
      hit.spine.scroller.scrollIntoView({ block: "nearest" });
      hit.spine.reveal(hit.first, { smooth: false });
    }
    const found = hit ? view.words.found(at + 1, hits.length) : view.words.notFound;
    this.count.textContent = this.wanted.trim() ? found : "";
    reader.viewer.later();
  }
}
