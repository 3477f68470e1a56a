// Beside the text: numbers in words, the map of heads, heatmap or lines, and the table.

import { element, keepingFocus, select } from "./dom.js";

// of the whole viewer's height, from which on a picture stands below the text
const ROOM = 700;

export class Panels {
  constructor(view, viewer) {
    Object.assign(this, { view, viewer });
    this.box = element("aside", {});
    this.mapHead = element("div", { class: "panel-head" });
    this.detailHead = element("div", { class: "panel-head" });
    this.mapPanel = element("section", { class: "panel" }, this.mapHead, element("div", {}, viewer.map.canvas), viewer.map.readout);
    this.detailBody = element("div", {});
    this.detailPanel = element("section", { class: "panel" }, this.detailHead, this.detailBody);
    // asked for once, since asking makes the browser lay out the page
    new ResizeObserver(([{ contentRect }]) => {
      if (this.view.detailWidth === contentRect.width) return;
      this.view.detailWidth = contentRect.width;
      viewer.later();
    }).observe(this.detailBody);
    this.box.append(viewer.sources.box, viewer.removals.box, viewer.summary.box, this.mapPanel, viewer.why.box, this.detailPanel, viewer.numbers.box);
  }

  update() {
    const { view, viewer } = this;
    // beside a short text there is room below it, for a picture if it is enough
    const { pictures } = viewer;
    const hasPictures = view.kind.canvases.length > 0;
    const isShort = viewer.reader.isShort();
    const isFree = isShort && hasPictures && view.height >= ROOM;
    const sign = [isShort, hasPictures, isFree].join();
    if (sign !== this.placed) {
      this.placed = sign;
      pictures.isFree = isFree;
      if (isShort && !isFree) viewer.reader.box.append(this.detailPanel);
      else viewer.numbers.box.before(this.detailPanel);
      if (!hasPictures) pictures.panel.remove();
      else if (isFree) viewer.reader.box.append(pictures.panel);
      else viewer.summary.box.before(pictures.panel);
    }
    pictures.update();
    viewer.speech.update();
    this.mapPanel.hidden = view.kind.heads < 2;
    this.heads();
    viewer.sources.update();
    viewer.removals.update();
    viewer.summary.update();
    if (!this.mapPanel.hidden) viewer.map.update();
    viewer.why.update();
    const shown = view.detail === "lines" ? viewer.lines : viewer.heatmap;
    if (this.shown !== shown) {
      this.shown = shown;
      this.detailBody.replaceChildren(...(shown === viewer.lines ? [shown.box] : [shown.box, shown.readout]));
    }
    shown.update();
    viewer.numbers.update();
  }

  // the reader is made anew, and what stands in it is to be placed again
  release() {
    this.placed = null;
  }

  heads() {
    const { view } = this;
    const { kind } = view;
    const names = Object.keys(kind.summary);
    if (view.span || view.region) names.push("span");
    const sign = [view.language, kind.kind, names, view.statistic, view.detail, view.heads?.size, Boolean(view.heads)].join();
    if (sign === this.sign) return;
    this.sign = sign;
    keepingFocus(this.box, () => this.build(names));
  }

  build(names) {
    const { view, viewer } = this;
    const { words } = view;
    const options = names.map((name) => [name, view.named(name)]);
    const chosen = names.includes(view.statistic) ? view.statistic : names[0];
    this.mapHead.replaceChildren(
      element("h2", { title: words.headsHint }, words.heads),
      select(words.statisticLabel, options, chosen, (statistic) => viewer.set({ statistic })),
    );
    if (view.heads) {
      this.mapHead.append(element("button", { class: "quiet", onclick: () => viewer.set({ heads: null }) }, words.reset));
    }
    const tab = (detail) =>
      element(
        "button",
        { class: "tab", "aria-pressed": String(view.detail === detail), onclick: () => viewer.set({ detail }) },
        words[detail],
      );
    const zoom = (sign, label, act) => element("button", { class: "icon", title: label, "aria-label": label, onclick: act }, sign);
    this.detailHead.replaceChildren(tab("heatmap"), tab("lines"));
    if (view.detail === "heatmap") {
      const { heatmap } = viewer;
      this.detailHead.append(
        element("span", { class: "grow" }),
        zoom("−", words.zoomOut, () => heatmap.zoom(1.6)),
        zoom("+", words.zoomIn, () => heatmap.zoom(0.6)),
        zoom("↔", words.zoomAll, () => {
          heatmap.all();
          heatmap.draw();
        }),
      );
    }
  }
}
