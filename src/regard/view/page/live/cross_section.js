// Section 4: the Transformer's cross-attention with its numbers, layer by layer and head by head.

import { element, select } from "../dom.js";
import { softmax, strongest } from "./numerics.js";
import { figure, shade, write } from "./matrix.js";
import { Grid, Likely, Stepper, drawStrip, productByHand, seen, softmaxByHand } from "./parts.js";

export class CrossSection {
  constructor(app) {
    this.app = app;
    this.root = element("section", { id: "cross", "aria-labelledby": "cross-title" });
    Object.assign(this, { place: 4, layer: 1, head: 0 });
  }

  build() {
    const { words } = this.app;
    const own = words.cross;
    this.stepper = new Stepper(words, own.stepLabel, (place) => this.go({ place }));
    this.grid = new Grid(own.gridLabel, (place) => this.go({ place }));
    this.likely = new Likely(words.search.likely);
    this.picks = element("div", { class: "picks" });
    this.body = element("tbody");
    const heads = [own.token, own.product, own.scaled, own.weight].map((name) => element("th", { scope: "col" }, name));
    this.lines = [0, 1, 2, 3].map(() => element("p", { class: "hand" }));
    this.strip = element("canvas", { role: "img", "aria-label": own.contextLabel });
    this.root.replaceChildren(
      element("h2", { id: "cross-title" }, own.title),
      element("p", { class: "intro" }, own.intro),
      this.picks,
      this.stepper.box,
      element("div", { class: "two" },
        element("div", {}, element("h3", {}, own.tableTitle),
          element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": own.tableTitle },
            element("table", { class: "weights" }, element("thead", {}, element("tr", {}, ...heads)), this.body))),
        element("div", {},
          element("h3", {}, own.queryTitle), this.lines[0],
          element("h3", {}, own.scoreTitle), this.lines[1],
          element("h3", {}, own.softmaxTitle), this.lines[2],
          element("h3", {}, own.contextTitle), this.lines[3], element("div", { class: "strip" }, this.strip),
          element("h3", {}, words.search.likely), this.likely.box)),
      element("h3", {}, own.gridTitle),
      this.grid.box,
    );
  }

  go(change) {
    Object.assign(this, change);
    this.redraw();
  }

  show() {
    if (!this.app.asked.translations) return;
    const { num_layers: layers, num_heads: heads } = this.app.model("transformer").config;
    const own = this.app.words.cross;
    const names = (count, name) => Array.from({ length: count }, (_, place) => [String(place), name(place + 1)]);
    this.picks.replaceChildren(
      element("label", {}, own.layer, select(own.layer, names(layers, String), String(this.layer), (layer) => this.go({ layer: Number(layer) }))),
      element("label", {}, own.head, select(own.head, names(heads, String), String(this.head), (head) => this.go({ head: Number(head) }))),
    );
    this.redraw();
  }

  redraw() {
    const { app, layer, head } = this;
    const found = app.asked?.translations?.[2];
    if (!found) return;
    const own = app.words.cross;
    const model = app.model("transformer");
    const name = (id) => seen(model.tokenizer.name(id));
    const place = (this.place = Math.min(this.place, found.steps.length - 1));
    const [names, written] = [found.source.map(name), found.steps.map(({ token }) => name(token))];
    const step = found.steps[place];
    const look = step.cross[layer][head];
    const size = look.query.length;
    this.stepper.show(place, found.steps.length, app.words.search.step(place + 1, found.steps.length, written[place]));
    this.showRows(names, look);
    const [[best]] = strongest(look.weights, 1);
    const key = model.decoder[layer].cross.part(found.decoder.memories[layer].keys[best], head);
    this.lines[0].textContent = `query = (${[...look.query.slice(0, 4)].map(figure).join(", ")}, …) · ${own.numbers(size)}`;
    this.lines[1].textContent = `${productByHand(own.scoreOf(names[best]), look.query, key, look.products[best])}; ${figure(look.products[best])} / √${size} = ${figure(look.scores[best])}`;
    this.lines[2].textContent = softmaxByHand(own.weightOf(names[best]), look.scores, look.weights, best);
    const parts = strongest(look.weights, 3).map(([at, weight]) => `${figure(weight)} · ${own.valueOf(names[at])}`);
    this.lines[3].textContent = `${parts.join(" + ")} + … = (${[...look.context.slice(0, 4)].map(figure).join(", ")}, …)`;
    drawStrip(this.strip, look.context, app.palette);
    this.likely.show(softmax(step.logits), (id) => model.tokenizer.name(id), step.token);
    const weights = () => found.steps.map((each) => each.cross[layer][head].weights);
    this.grid.show(found.steps[0].cross[layer][head], { rows: written, columns: names, weights, chosen: place, palette: app.palette });
  }

  showRows(names, look) {
    const sign = names.join("\u0000");
    if (sign !== this.sign || !this.rows?.[0].line.isConnected) {
      this.sign = sign;
      this.rows = names.map((name) => {
        const cells = [0, 1, 2].map(() => element("td", { class: "number" }));
        return { cells, line: element("tr", {}, element("th", { scope: "row" }, name), ...cells) };
      });
      this.body.replaceChildren(...this.rows.map(({ line }) => line));
    }
    const { palette } = this.app;
    this.rows.forEach(({ cells }, key) => {
      [look.products[key], look.scores[key], look.weights[key]].forEach((value, column) => {
        if (write(cells[column], figure(value)) && column === 2) shade(cells[2], value, palette);
        else if (column === 2 && palette !== this.shownPalette) shade(cells[2], value, palette);
      });
    });
    this.shownPalette = palette;
  }
}
