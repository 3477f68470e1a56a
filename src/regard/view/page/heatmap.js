// Kept rows against what they looked at, as colours: with zoom, crosshair and values.

import { element, sized } from "./dom.js";
import { step } from "./colours.js";
import { format } from "./language.js";
import { shorten } from "./printable.js";

const SIDE = 76;
const HEAD = 84;
const MARGIN = 26;
const LEGIBLE = 13;
const TALLEST = 420;
const WIDEST = 40;

export class Heatmap {
  // `on.row(row)` hears which row was clicked
  constructor(view, on) {
    Object.assign(this, { view, on });
    this.canvas = element("canvas", { class: "heatmap", tabindex: "0", role: "application" });
    this.mark = element("i", { class: "row-mark", hidden: true });
    this.box = element("div", { class: "heatmap-box" }, this.canvas, this.mark);
    this.readout = element("p", { class: "readout", "aria-live": "polite" });
    this.at = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      this.drag = { x: event.offsetX, from: this.from, moved: false };
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerup", (event) => {
      if (this.drag && !this.drag.moved) {
        const found = this.place(event);
        if (found) this.on.row(found[0]);
      }
      this.drag = null;
    });
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("dblclick", (event) => this.zoom(0.4, this.place(event)?.[1]));
    this.canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        this.zoom(event.deltaY < 0 ? 0.8 : 1.25, this.place(event)?.[1]);
      },
      { passive: false },
    );
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.all();
  }

  all() {
    [this.from, this.span] = [0, Infinity];
  }

  zoom(factor, centre) {
    const count = this.view.keyUnits.first.length;
    const span = Math.min(this.span, count);
    const wanted = Math.min(count, Math.max(6, span * factor));
    const middle = centre ?? this.from + span / 2;
    const share = (middle - this.from) / span;
    this.span = wanted;
    this.from = Math.max(0, Math.min(count - wanted, middle - share * wanted));
    this.draw();
  }

  update() {
    const { matrix, palette, words, detailWidth } = this.view;
    const sign = `${palette.theme} ${words.heatmap} ${detailWidth}`;
    // when another token is active only the mark beside its row moves
    if (this.seen?.matrix !== matrix || this.seen.sign !== sign) this.draw();
    this.seen = { matrix, sign };
    this.follow();
  }

  follow() {
    const { matrix, current } = this.view;
    const isActive = ({ tokens }) => current.tokens && tokens[0] <= current.tokens[0] && current.tokens[0] < tokens[1];
    const row = matrix ? matrix.rows.findIndex(isActive) : -1;
    this.mark.hidden = row < 0;
    this.mark.style.transform = `translateY(${this.top + row * this.tall}px)`;
    this.mark.style.height = `${Math.max(2, this.tall - 1)}px`;
  }

  draw() {
    const { palette, keyUnits, matrix, words } = this.view;
    this.canvas.setAttribute("aria-label", `${words.heatmap}: ${words.rowsByKeys}`);
    if (!matrix?.rows.length) return;
    const { rows } = matrix;
    const count = keyUnits.first.length;
    const span = Math.min(this.span, count);
    const width = Math.max(160, this.view.detailWidth ?? 360);
    const wide = Math.min(WIDEST, (width - SIDE - MARGIN) / span);
    const isNamed = wide >= LEGIBLE;
    const tall = Math.min(isNamed ? Math.max(0.7 * wide, LEGIBLE) : LEGIBLE + 3, Math.max(3, TALLEST / rows.length));
    const top = isNamed ? HEAD : 4;
    Object.assign(this, { wide, tall, top });
    const context = sized(this.canvas, width, top + tall * rows.length + 2);
    context.font = `11px ${getComputedStyle(this.canvas).fontFamily}`;
    this.cells(context, span);
    context.textBaseline = "middle";
    context.textAlign = "right";
    const every = Math.ceil(LEGIBLE / tall);
    context.fillStyle = palette.faint;
    rows.forEach(({ name }, row) => {
      if (row % every) return;
      context.fillText(shorten(name, 12), SIDE - 6, top + (row + 0.5) * tall, SIDE - 8);
    });
    if (isNamed) this.names(context, span);
    this.cross(context, span);
  }

  // at most one column a pixel, each with the largest of its keys, so that nothing is lost from sight
  picture(span) {
    const { palette, matrix, aside } = this.view;
    const { rows, largest } = matrix;
    const columns = Math.min(Math.ceil(span), Math.floor(this.wide * span));
    const same = this.drawn;
    if (same?.matrix === matrix && same.sign === `${this.from} ${span} ${columns} ${palette.theme}`) return same.small;
    const image = new ImageData(columns, rows.length);
    rows.forEach(({ weights }, row) => {
      for (let column = 0; column < columns; column++) {
        const start = Math.floor(this.from + (column * span) / columns);
        const end = Math.max(start + 1, Math.floor(this.from + ((column + 1) * span) / columns));
        let most = 0;
        for (let key = start; key < Math.min(end, weights.length); key++) {
          if (!aside[key]) most = Math.max(most, weights[key]);
        }
        const [red, green, blue] = palette.steps[step(most, largest)];
        const at = 4 * (row * columns + column);
        image.data[at] = red;
        image.data[at + 1] = green;
        image.data[at + 2] = blue;
        image.data[at + 3] = 255;
      }
    });
    const small = new OffscreenCanvas(columns, rows.length);
    small.getContext("2d").putImageData(image, 0, 0);
    this.drawn = { matrix, small, sign: `${this.from} ${span} ${columns} ${palette.theme}` };
    return small;
  }

  cells(context, span) {
    const { palette, matrix } = this.view;
    const { rows } = matrix;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.picture(span), SIDE, this.top, this.wide * span, this.tall * rows.length);
    if (this.wide < 7) return;
    context.fillStyle = palette.theme === "dark" ? "#171614" : "#fdfcfa";
    for (let column = 1; column < span; column++) {
      context.fillRect(SIDE + column * this.wide - 0.5, this.top, 1, this.tall * rows.length);
    }
    for (let row = 1; row < rows.length; row++) context.fillRect(SIDE, this.top + row * this.tall - 0.5, this.wide * span, 1);
  }

  names(context, span) {
    const { palette } = this.view;
    context.textAlign = "left";
    context.fillStyle = palette.faint;
    for (let key = Math.floor(this.from); key < Math.min(this.from + span, this.view.keyUnits.first.length); key++) {
      context.save();
      context.translate(SIDE + (key - this.from + 0.5) * this.wide, this.top - 6);
      context.rotate(-Math.PI / 3);
      context.fillText(shorten(this.view.keyName(key), 13), 0, 0);
      context.restore();
    }
  }

  cross(context, span) {
    const { palette, matrix, words } = this.view;
    if (!this.at || this.at[0] >= matrix.rows.length) {
      this.readout.textContent = words.rowsByKeys;
      return;
    }
    const [row, key] = this.at;
    const x = SIDE + (key - this.from) * this.wide;
    const y = this.top + row * this.tall;
    context.strokeStyle = palette.faint;
    context.lineWidth = 0.5;
    context.strokeRect(SIDE, y, this.wide * span, this.tall);
    context.strokeRect(x, this.top, Math.max(1, this.wide), this.tall * matrix.rows.length);
    context.strokeStyle = palette.ink;
    context.lineWidth = 1.5;
    context.strokeRect(x, y, Math.max(2, this.wide), this.tall);
    const { name, weights } = matrix.rows[row];
    this.readout.textContent = words.readout(name, shorten(this.view.keyName(key), 40), format(weights[key]));
  }

  place(event) {
    const { matrix, keyUnits } = this.view;
    if (!matrix) return null;
    const row = Math.floor((event.offsetY - this.top) / this.tall);
    const key = Math.floor(this.from + (event.offsetX - SIDE) / this.wide);
    const isInside = row >= 0 && row < matrix.rows.length && event.offsetX >= SIDE && key < keyUnits.first.length;
    return isInside ? [row, key] : null;
  }

  move(event) {
    if (this.drag && Math.abs(event.offsetX - this.drag.x) > 3 && Number.isFinite(this.span)) {
      this.drag.moved = true;
      const most = this.view.keyUnits.first.length - this.span;
      this.from = Math.max(0, Math.min(most, this.drag.from - (event.offsetX - this.drag.x) / this.wide));
      this.draw();
      return;
    }
    this.point(this.place(event));
  }

  point(at) {
    if (String(at) === String(this.at)) return;
    this.at = at;
    this.draw();
  }

  key(event) {
    const { matrix, keyUnits } = this.view;
    if (!matrix) return;
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key in moves) {
      const [row, key] = this.at ?? [0, Math.floor(this.from)];
      const [down, right] = this.at ? moves[event.key] : [0, 0];
      const inside = (value, count) => Math.max(0, Math.min(count - 1, value));
      this.point([inside(row + down, matrix.rows.length), inside(key + right, keyUnits.first.length)]);
    } else if (event.key === "+" || event.key === "=") this.zoom(0.6, this.at?.[1]);
    else if (event.key === "-") this.zoom(1.6, this.at?.[1]);
    else if (event.key === "0") {
      this.all();
      this.draw();
    } else if (event.key === "Enter" && this.at) this.on.row(this.at[0]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
