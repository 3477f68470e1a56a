// The text to be read: input above, output below, and the steps through it.

import { element } from "./dom.js";
import { step, strip } from "./colours.js";
import { Find } from "./find.js";
import { format } from "./language.js";
import { Minimap } from "./minimap.js";
import { isPictured, stretch } from "./pictured.js";
import { LINE, Spine } from "./spine.js";

export class Reader {
  constructor(view, viewer) {
    Object.assign(this, { view, viewer });
    this.box = element("section", { class: "reader" });
    this.spines = [];
    this.find = new Find(view, this);
  }

  enter(index) {
    this.view.enter(index);
    this.build();
    this.viewer.set({});
  }

  // the parts of the text: `isKey` is looked at, `isQuery` looks
  parts() {
    const { kind, words } = this.view;
    const { sequence, looked } = kind;
    if (!kind.within) {
      const hasPictures = kind.canvases.length > 0;
      if (kind.track) {
        return [
          { name: "input", sequence: looked, from: 0, to: looked.ids.length, label: words.soundPart, isKey: true },
          { name: "output", sequence, from: 0, to: sequence.ids.length, label: words.transcript, isQuery: true },
        ];
      }
      const asking = { text: words.text, query: words.query }[kind.query] ?? (hasPictures ? words.answer : words.target);
      return [
        { name: "input", sequence: looked, from: 0, to: looked.ids.length, label: hasPictures ? words.image : words.source, isKey: true },
        { name: "output", sequence, from: 0, to: sequence.ids.length, label: asking, isQuery: true },
      ];
    }
    const both = { sequence, isKey: true, isQuery: true };
    if (kind.prompt > 0 && kind.prompt < kind.size) {
      return [
        { ...both, name: "input", from: 0, to: kind.prompt, label: words.prompt },
        { ...both, name: "output", from: kind.prompt, to: kind.regions.last, label: words.answer },
      ];
    }
    return [{ ...both, name: "input", from: 0, to: kind.size, label: words[kind.query] ?? words.text }];
  }

  build() {
    const { view, viewer } = this;
    for (const spine of this.spines) spine.observer.disconnect();
    this.spines = [];
    this.box.replaceChildren();
    viewer.panels?.release();
    if (!view.kind) return;
    const on = {
      over: (token, spine) => this.over(token, spine),
      click: (token, event, spine) => this.click(token, event, spine),
      select: (first, last, spine) => spine.isKey && this.viewer.set({ span: [first, last + 1] }),
      scrolled: (spine) => spine.minimap?.draw(),
      arranged: () => this.viewer.later(),
    };
    const parts = this.parts();
    this.box.append(this.find.box);
    // a sound lies over time, above the words
    if (view.kind.track) this.box.append(viewer.speech.panel);
    for (const part of parts) {
      const spine = new Spine({ ...part, fold: (token) => view.fold(token, part.sequence), on });
      Object.assign(spine, { isKey: part.isKey, isQuery: part.isQuery });
      spine.minimap = new Minimap(spine, view.words.minimap);
      this.spines.push(spine);
      spine.scale = element("div", { class: "scale" });
      const head = element("div", { class: "part-head" }, element("h2", {}, part.label), spine.scale);
      const box = element("div", { class: `part is-${part.name}${parts.length === 1 ? " is-alone" : ""}` }, head);
      box.append(element("div", { class: "spine-box" }, spine.scroller, spine.minimap.canvas));
      this.box.append(box);
    }
    this.find.build();
    this.box.append(viewer.removals.strip, this.walk());
  }

  // whether the text leaves most of the height to something else
  isShort() {
    const lines = this.spines.reduce((sum, { starts }) => sum + starts.length, 0);
    const isShort = this.spines.every((spine) => spine.width) && lines * LINE < 0.3 * (this.view.height ?? 0);
    this.box.classList.toggle("is-short", isShort);
    return isShort;
  }

  walk() {
    const { viewer } = this;
    const { words } = this.view;
    const button = (sign, label, act) =>
      element("button", { class: "icon", title: label, "aria-label": label, onclick: act }, sign);
    this.playing = button("▶", words.play, () => viewer.play());
    this.status = element("p", { class: "status", role: "status" });
    return element(
      "div",
      { class: "walk", role: "toolbar", "aria-label": words.step },
      button("⇤", words.start, () => viewer.start()),
      button("←", words.back, () => viewer.step(-1)),
      button("→", words.forward, () => viewer.step(1)),
      this.playing,
      this.find.opener,
      this.status,
    );
  }

  update() {
    const { view, viewer } = this;
    const { current, usage, palette, keyUnits, rowUnits, kind, words } = view;
    const showsUsage = usage && (this.spines.length > 1 || current.tokens === null);
    for (const spine of this.spines) {
      const isUsed = showsUsage && spine.isQuery && (spine.name === "output" || this.spines.length === 1);
      spine.paint((first, last) => {
        let level = 0;
        if (isUsed) level = step(usage.byToken[first], usage.largest);
        else if (spine.isKey && current.units) level = this.level(first, last);
        const names = [];
        if (spine.isQuery && current.tokens && current.tokens[0] <= last && first < current.tokens[1]) names.push("active");
        if (spine.isQuery && rowUnits && (kind.rowOf.has(first) || kind.rowOf.has(last))) names.push("row");
        if (spine.isKey && view.span && view.span[0] <= last && first < view.span[1]) names.push("span");
        if (spine.isKey && view.apart && first === 0) names.push("first");
        const marked = spine.isKey ? viewer.sources.marks(first, last) : { names: [], sign: "" };
        const mark = Math.max(spine.marks?.[first] ?? 0, spine.marks?.[last] ?? 0);
        if (mark) names.push(mark > 1 ? "found" : "hit");
        if (view.walking && spine.isQuery && current.tokens && first >= current.tokens[1] && first >= kind.prompt) names.push("later");
        return {
          colour: level ? palette.css[level] : "",
          ink: level && level >= palette.dark && palette.theme === "dark" ? palette.onStrong : "",
          names: [...names, ...marked.names].join(" "),
          marks: marked.names.join(" "),
          sign: marked.sign,
        };
      });
      if (isUsed) spine.minimap.update(usage.byToken, palette, view.join);
      else if (spine.isKey && current.vector) spine.minimap.update(this.without(current.vector), palette, view.join);
      else spine.minimap.update(null, palette);
      if (isUsed) this.legend(spine.scale, usage.largest, { label: words.statistic.span });
      else if (spine === this.spines[0]) this.legend(spine.scale, current.largest, current);
      else spine.scale.replaceChildren();
    }
    this.playing.textContent = viewer.timer ? "‖" : "▶";
    this.playing.setAttribute("aria-label", viewer.timer ? words.pause : words.play);
    this.status.textContent = view.failure ?? view.progress ?? this.told ?? words.keys;
    this.keyUnits = keyUnits;
  }

  level(first, last) {
    const { current, keyUnits, kind, aside, join } = this.view;
    // a picture has a scale of its own
    if (first >= kind.keys || aside[keyUnits.of[first]] || isPictured(kind.looked, first)) return 0;
    let share = current.units[keyUnits.of[first]];
    // the bytes of one letter
    for (let token = first + 1; token <= Math.min(last, kind.keys - 1); token++) {
      if (keyUnits.of[token] !== keyUnits.of[token - 1]) share = join(share, current.units[keyUnits.of[token]]);
    }
    return step(share, current.largest);
  }

  without(vector) {
    const { aside, keyUnits } = this.view;
    const { looked } = this.view.kind;
    return vector.map((weight, token) => (aside[keyUnits.of[token]] || isPictured(looked, token) ? 0 : weight));
  }

  // `isBeyond`: something stronger has the last colour too
  legend(scale, largest, { isBeyond = false, label = this.view.scaleName }) {
    const { palette } = this.view;
    const sign = `${palette.theme} ${largest} ${isBeyond} ${label}`;
    if (scale.sign === sign && scale.childElementCount) return;
    scale.sign = sign;
    const ramp = element("i", { class: "ramp" });
    ramp.style.background = strip(palette);
    scale.replaceChildren(
      element("span", {}, label),
      element("span", { class: "tick" }, "0"),
      ramp,
      element("span", { class: "tick" }, largest ? `${isBeyond ? "≥ " : ""}${format(largest)}` : ""),
    );
  }

  over(token, spine) {
    const { view, viewer } = this;
    const { kind } = view;
    if (token === null) {
      this.told = null;
      viewer.set({ hover: null });
      return;
    }
    const isQuery = spine.isQuery && !isPictured(spine.sequence, token);
    const rows = isQuery && view.rowUnits ? view.rowsOf(view.rowUnits.span(view.rowUnits.of[token])) : [];
    const canTell = rows.length || (isQuery && kind.hasTop() && token >= (kind.writes ? 1 : 0));
    this.told = null;
    if (spine.isKey && view.current?.units && token < kind.keys && !(canTell && view.pinned === null)) {
      const span = this.keySpan(token);
      const share = view.current.vector.subarray(...span).reduce((sum, weight) => view.join(sum, weight), 0);
      this.told = `${view.spanName(kind.looked, span).slice(0, 80)}   ${format(share)}`;
    }
    viewer.set(view.pinned === null ? { hover: canTell ? token : null } : {});
  }

  // the unit of a token that is looked at; a picture is one
  keySpan(token) {
    const { keyUnits, kind } = this.view;
    return isPictured(kind.looked, token) ? stretch(kind.looked, token) : keyUnits.span(keyUnits.of[token]);
  }

  click(token, event, spine) {
    const { view, viewer } = this;
    const isQuery = spine.isQuery && !isPictured(spine.sequence, token);
    const rows = isQuery ? view.rowsOf(view.rowUnits.span(view.rowUnits.of[token])) : [];
    if (rows.length && !event.shiftKey) {
      const isSame = view.pinned !== null && view.rowUnits.of[view.pinned] === view.rowUnits.of[token];
      viewer.set({ pinned: isSame ? null : token, walking: false });
    } else if (spine.isKey && token < view.kind.keys) {
      const span = this.keySpan(token);
      const isSame = String(view.span) === String(span);
      if (event.shiftKey && view.span) {
        viewer.set({ span: [Math.min(view.span[0], span[0]), Math.max(view.span[1], span[1])] });
      } else viewer.set({ span: isSame ? null : span });
    }
  }

  // in an input of its own arrows move through what can be asked about, with shift widen it, and Enter asks
  key(event) {
    const { view, viewer } = this;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const spine = this.spines[0];
    if (this.spines.length < 2 || event.target !== spine.scroller) return false;
    if (event.key === "Enter") return viewer.removals.ask();
    if (!by) return false;
    const last = Math.min(spine.to, view.kind.keys);
    if (!view.span) {
      viewer.set({ span: this.keySpan(view.keyUnits.first[Math.max(0, view.aside.indexOf(0))]) });
      return true;
    }
    const edge = by > 0 ? view.span[1] : view.span[0] - 1;
    if (edge < 0 || edge >= last) return true;
    const next = this.keySpan(edge);
    viewer.set({ span: event.shiftKey ? [Math.min(view.span[0], next[0]), Math.max(view.span[1], next[1])] : next });
    spine.reveal(edge);
    return true;
  }

  reveal(token) {
    for (const spine of this.spines) spine.reveal(token);
  }

  drawAll() {
    for (const spine of this.spines) {
      spine.arrange(true);
      spine.draw(spine.starts.length <= 2000);
    }
  }
}
