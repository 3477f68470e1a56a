// Two columns of tokens and a curve for each weight between them, as thick as the weight is large.
// Vig 2019, "A multiscale visualization of attention in the Transformer model".

import { element, svg } from "./dom.js";
import { format } from "./language.js";
import { shorten } from "./printable.js";

const TALL = 22;
// of a long text only the strongest are drawn, in their order
const MOST_KEYS = 36;
const MOST_ROWS = 36;
const FAINTEST = 0.03;

export class Lines {
  constructor(view, on) {
    Object.assign(this, { view, on });
    this.box = element("div", { class: "lines" });
  }

  update() {
    const { matrix, current, palette, aside, keyUnits } = this.view;
    this.box.replaceChildren();
    if (!matrix || !current.units) return;
    const middle = Math.max(0, matrix.rows.findIndex(({ tokens }) => isActive(tokens, current)));
    const start = Math.max(0, Math.min(middle - MOST_ROWS / 2, matrix.rows.length - MOST_ROWS));
    const rows = matrix.rows.slice(start, start + MOST_ROWS);
    const keys = strongest(current.units, Math.min(MOST_KEYS, keyUnits.first.length), aside);
    const width = Math.max(240, this.view.detailWidth ?? 360);
    const height = TALL * Math.max(rows.length, keys.length) + 8;
    const [left, right] = [width * 0.3, width * 0.66];
    const offset = (count) => (height - TALL * count) / 2 + TALL / 2;
    const [rowsFrom, keysFrom] = [offset(rows.length), offset(keys.length)];
    const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": this.view.words.lines });
    const colour = palette.css[palette.css.length - 1];
    const hasActive = rows.some(({ tokens }) => isActive(tokens, current));
    rows.forEach(({ weights, tokens }, row) => {
      const isOn = !hasActive || isActive(tokens, current);
      if (hasActive && !isOn) return;
      keys.forEach((key, place) => {
        const share = weights[key] / (matrix.largest || 1);
        if (share < FAINTEST) return;
        const [y, to] = [rowsFrom + row * TALL, keysFrom + place * TALL];
        const bend = (right - left) / 2;
        const d = `M${left + 6},${y} C${left + bend},${y} ${right - bend},${to} ${right - 6},${to}`;
        const strength = Math.min(1, share);
        picture.append(
          svg("path", { d, fill: "none", stroke: colour, "stroke-width": 0.6 + 4 * strength, "stroke-opacity": 0.2 + 0.75 * strength }),
        );
      });
    });
    rows.forEach(({ name, tokens }, row) => {
      const on = isActive(tokens, current);
      const text = svg("text", { x: left, y: rowsFrom + row * TALL, class: on ? "is-active" : "", "text-anchor": "end", onclick: () => this.on.row(start + row) });
      text.textContent = shorten(name, 18);
      picture.append(text);
    });
    keys.forEach((key, place) => {
      const text = svg("text", { x: right, y: keysFrom + place * TALL });
      text.textContent = `${shorten(this.view.keyName(key), 16)}`;
      const value = svg("tspan", { class: "value", dx: "8" });
      value.textContent = format(current.units[key]);
      if (current.units[key] >= 0.005) text.append(value);
      picture.append(text);
    });
    this.box.append(picture);
  }
}

const isActive = (tokens, current) => Boolean(current.tokens) && tokens[0] < current.tokens[1] && current.tokens[0] < tokens[1];

export function strongest(weights, most, aside) {
  const order = Array.from(weights.keys()).filter((key) => !aside[key]);
  if (order.length > most) order.sort((one, other) => weights[other] - weights[one]).splice(most);
  return order.sort((one, other) => one - other);
}
