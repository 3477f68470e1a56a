// All layers and heads at a glance: each a cell, coloured by what tells heads apart.

import { element, sized } from "./dom.js";
import { number, format } from "./language.js";
import { STEPS } from "./colours.js";

const SIDE = 26;
// of heads alone; statistics say their unit
const SHARES = new Set(["strongest", "concentration", "span"]);

export class HeadMap {
  // `on.choose(heads)` hears a set of head numbers, or null for all
  constructor(view, on) {
    Object.assign(this, { view, on });
    this.canvas = element("canvas", { class: "map", tabindex: "0", role: "application" });
    this.readout = element("p", { class: "readout", "aria-live": "polite" });
    this.cursor = null;
    this.canvas.addEventListener("pointermove", (event) => this.over(this.at(event)));
    this.canvas.addEventListener("pointerleave", () => this.over(null));
    this.canvas.addEventListener("click", (event) => this.pick(this.at(event), event.shiftKey));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  update() {
    const { kind, palette, words, heads } = this.view;
    const values = this.values();
    const sign = [kind.kind, palette.theme, words.heads, heads && [...heads].join(), this.cursor, this.room(), values.join()].join("|");
    if (sign === this.sign) return;
    this.sign = sign;
    const finite = values.filter(Number.isFinite);
    const [low, high] = [Math.min(...finite, Infinity), Math.max(...finite, -Infinity)];
    const most = Math.max(...kind.layers.map((layer) => layer.heads));
    const width = this.room();
    this.wide = Math.min(28, (width - SIDE) / kind.layers.length);
    this.tall = Math.max(8, Math.min(18, this.wide * 1.4, 220 / most));
    const context = sized(this.canvas, SIDE + this.wide * kind.layers.length, this.tall * most + 18);
    context.font = `10.5px ${getComputedStyle(this.canvas).fontFamily}`;
    const gap = this.wide > 6 ? 1 : 0;
    for (let head = 0; head < kind.heads; head++) {
      const [column, row] = kind.place(head);
      const share = Number.isFinite(values[head]) ? (values[head] - low) / (high - low || 1) : 0;
      const [x, y] = [SIDE + column * this.wide, row * this.tall];
      context.fillStyle = palette.css[Math.round((0.06 + 0.94 * share) * (STEPS - 1))];
      context.globalAlpha = heads && !heads.has(head) ? 0.32 : 1;
      context.fillRect(x, y, this.wide - gap, this.tall - gap);
      context.globalAlpha = 1;
      if (heads?.has(head) || head === this.cursor) {
        context.strokeStyle = palette.ink;
        context.lineWidth = heads?.has(head) ? 2 : 1;
        context.strokeRect(x + 0.5, y + 0.5, this.wide - gap - 1, this.tall - gap - 1);
      }
    }
    context.fillStyle = palette.faint;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const everyRow = Math.ceil(14 / this.tall);
    for (let row = 0; row < most; row += everyRow) context.fillText(String(row), SIDE - 6, (row + 0.5) * this.tall);
    context.textAlign = "center";
    const everyColumn = [1, 2, 5, 10, 20].find((every) => every * this.wide >= 22) ?? 50;
    kind.layers.forEach(({ layer }, column) => {
      if (column % everyColumn === 0) context.fillText(String(layer), SIDE + (column + 0.5) * this.wide, this.tall * most + 10);
    });
    this.canvas.setAttribute("aria-label", `${words.heads}: ${this.view.named(this.view.statistic)}`);
    this.tell(values, low, high);
  }

  room() {
    return Math.max(120, (this.view.asideWidth ?? 420) - 50);
  }

  values() {
    const { kind, statistic, usage } = this.view;
    if (statistic === "span") return usage?.byHead ?? new Float32Array(kind.heads).fill(NaN);
    return (kind.summary[statistic] ?? []).flat().map((value) => value ?? NaN);
  }

  tell(values, low, high) {
    const { kind, words, statistic, reading } = this.view;
    const isShare = SHARES.has(statistic) || reading.statistics[statistic]?.unit === "share";
    const told = isShare ? format : number;
    if (this.cursor === null) {
      const range = Number.isFinite(low) ? `${told(low)} – ${told(high)}` : words.none;
      this.readout.textContent = `${words.layer} →  ${words.head} ↓   ${range}`;
      return;
    }
    const [column, row] = kind.place(this.cursor);
    this.readout.textContent = `${words.oneHead(kind.layers[column].layer, row)}: ${told(values[this.cursor])}`;
  }

  // the head under the pointer; a layer's number stands for all of its heads, a head's for it in every layer
  at(event) {
    const { kind } = this.view;
    const column = Math.floor((event.offsetX - SIDE) / this.wide);
    const row = Math.floor(event.offsetY / this.tall);
    if (column >= kind.layers.length) return null;
    const most = Math.max(...kind.layers.map((layer) => layer.heads));
    if (column < 0) {
      return row < most
        ? kind.layers.flatMap(({ heads }, layer) => (row < heads ? [kind.first[layer] + row] : []))
        : null;
    }
    if (row >= most) return kind.layers.slice(column, column + 1).flatMap(({ heads }) => Array.from({ length: heads }, (_, own) => kind.first[column] + own));
    return row < kind.layers[column].heads ? [kind.first[column] + row] : null;
  }

  over(found) {
    const cursor = found?.length === 1 ? found[0] : null;
    if (cursor === this.cursor) return;
    this.cursor = cursor;
    this.update();
  }

  pick(found, adds) {
    if (!found) return;
    const before = this.view.heads ?? new Set();
    const isSame = found.every((head) => before.has(head));
    const heads = new Set(adds ? before : []);
    for (const head of found) {
      if (isSame) heads.delete(head);
      else heads.add(head);
    }
    this.on.choose(heads.size ? heads : null);
  }

  key(event) {
    const { kind } = this.view;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in moves) {
      const [column, row] = this.cursor === null ? [0, 0] : kind.place(this.cursor);
      const [right, down] = this.cursor === null ? [0, 0] : moves[event.key];
      const layer = Math.min(kind.layers.length - 1, Math.max(0, column + right));
      const head = Math.min(kind.layers[layer].heads - 1, Math.max(0, row + down));
      this.over([kind.first[layer] + head]);
    } else if ((event.key === "Enter" || event.key === " ") && this.cursor !== null) {
      this.pick([this.cursor], event.shiftKey);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
