// Pieces that several sections share: steps one by one, bars, a list of likely tokens, a strip of numbers.

import { element, sized } from "../dom.js";
import { step } from "../colours.js";
import { strongest } from "./numerics.js";
import { figure, write } from "./matrix.js";

export const share = (value) => (value > 0 && value < 0.0005 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`);

/** A token as it is shown: its space, which belongs to it, is seen. */
export const seen = (name) => name.replace(/ /g, "␣").replace(/\n/g, "⏎");

/** Buttons and a slider that go through steps; `choose(place)` hears of it. */
export class Stepper {
  constructor(words, label, choose) {
    this.slider = element("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": label });
    this.slider.addEventListener("input", () => choose(this.slider.valueAsNumber));
    const move = (by) => {
      const [place, last] = [this.slider.valueAsNumber, Number(this.slider.max)];
      const next = Math.min(last, Math.max(0, place + by));
      if (next !== place) choose(next);
    };
    this.told = element("output", { class: "told" });
    this.box = element(
      "div",
      { class: "stepper" },
      element("button", { onclick: () => move(-1), "aria-label": words.back }, "←"),
      this.slider,
      element("button", { onclick: () => move(1), "aria-label": words.onward }, "→"),
      this.told,
    );
  }

  show(place, count, text) {
    this.slider.max = count - 1;
    this.slider.value = place;
    this.slider.setAttribute("aria-valuetext", text);
    this.told.textContent = text;
  }
}

/** The most likely tokens, each with a bar. */
export class Likely {
  constructor(label) {
    this.rows = Array.from({ length: 5 }, () => {
      const [name, bar, value] = [element("span", { class: "name" }), element("span", { class: "bar" }), element("b")];
      return { name, bar, value, line: element("li", {}, name, element("span", { class: "track" }, bar), value) };
    });
    this.box = element("ol", { class: "likely", "aria-label": label }, ...this.rows.map(({ line }) => line));
  }

  show(probabilities, name, chosen) {
    const found = strongest(probabilities, this.rows.length);
    this.rows.forEach((row, place) => {
      const [id, value] = found[place];
      write(row.name, seen(name(id)));
      row.bar.style.width = `${100 * value}%`;
      write(row.value, share(value));
      row.line.classList.toggle("is-chosen", id === chosen);
    });
  }
}

/** Numbers between −1 and 1 as a strip of cells, in rows of `across`: negative ones are hatched by their colour. */
export function drawStrip(canvas, values, palette, across = values.length) {
  const width = canvas.parentNode.clientWidth || 600;
  const [size, rows] = [width / across, Math.ceil(values.length / across)];
  const high = Math.min(14, Math.max(7, size * 2));
  const context = sized(canvas, width, rows * high);
  values.forEach((value, place) => {
    context.fillStyle = value >= 0 ? palette.css[step(value, 1)] : palette.cold[step(-value, 1)];
    context.fillRect((place % across) * size, Math.floor(place / across) * high, Math.ceil(size), high - 1);
  });
}

/** A table of weights [row, column] as a picture with its labels; `choose(row)` where a row is clicked. */
export class Grid {
  constructor(label, choose) {
    this.canvas = element("canvas", { role: "img", "aria-label": label });
    this.mark = element("div", { class: "row-mark" });
    this.box = element("div", { class: "grid", tabindex: 0, role: "group", "aria-label": label }, this.canvas, this.mark);
    this.canvas.addEventListener("pointerdown", ({ offsetY }) => {
      const row = Math.floor((offsetY - this.top) / this.size);
      if (row >= 0 && row < this.count) choose(row);
    });
  }

  /** `key` is what the weights are of: the same key is the same picture. */
  show(key, { rows, columns, weights, chosen, palette }) {
    const room = this.box.clientWidth || 600;
    if (key !== this.key || palette !== this.palette || room !== this.room) this.draw(room, rows, columns, weights(), palette);
    Object.assign(this, { key, palette, room });
    this.mark.style.transform = `translate(${this.left - 1}px, ${this.top + this.size * chosen - 1}px)`;
  }

  draw(room, rows, columns, weights, palette) {
    const left = Math.min(92, 20 + 7 * Math.max(...rows.map((name) => name.length)));
    const size = Math.max(9, Math.min(22, Math.floor((room - left - 4) / columns.length)));
    const top = Math.min(96, 12 + 7 * Math.max(...columns.map((name) => name.length)));
    Object.assign(this, { left, size, top, count: rows.length });
    Object.assign(this.mark.style, { width: `${size * columns.length + 1}px`, height: `${size + 1}px` });
    const context = sized(this.canvas, left + size * columns.length + 4, top + size * rows.length + 4);
    context.font = `${Math.min(12, size)}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.fillStyle = palette.faint;
    columns.forEach((name, column) => {
      context.save();
      context.translate(left + size * (column + 0.5), top - 6);
      context.rotate(-Math.PI / 2);
      context.fillText(name, 0, 0, top - 8);
      context.restore();
    });
    rows.forEach((name, row) => {
      context.fillStyle = palette.faint;
      context.textAlign = "end";
      context.fillText(name, left - 6, top + size * (row + 0.5), left - 8);
      weights[row].forEach((weight, column) => {
        context.fillStyle = palette.css[step(weight, 1)];
        context.fillRect(left + size * column, top + size * row, size - 1, size - 1);
      });
    });
  }
}

/** “e^a / (e^a + e^b + …) = weight” for one place of a row. */
export function softmaxByHand(name, scores, weights, place) {
  const others = strongest(scores, 4).map(([at]) => at).filter((at) => at !== place).slice(0, 2);
  const rest = scores.length > others.length + 1 ? " + …" : "";
  const sum = [place, ...others].map((at) => `e^${figure(scores[at])}`).join(" + ");
  return `${name} = e^${figure(scores[place])} / (${sum}${rest}) = ${figure(weights[place])}`;
}

/** “a·b + c·d + … = sum”. */
export function productByHand(name, one, two, total, shown = 3) {
  const parts = Array.from(one.slice(0, shown), (value, place) => `${figure(value)}·${bracketed(figure(two[place]))}`);
  return `${name} = ${parts.join(" + ")}${one.length > shown ? " + …" : ""} = ${figure(total)}`;
}

const bracketed = (text) => (text.startsWith("−") ? `(${text})` : text);
