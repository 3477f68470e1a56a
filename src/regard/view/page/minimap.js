// The whole of a text as a narrow strip: how much weight its lines have, and which of them are in sight.

import { element, sized } from "./dom.js";
import { LINE } from "./spine.js";

const WIDTH = 40;

export class Minimap {
  constructor(spine, label) {
    this.spine = spine;
    this.canvas = element("canvas", { class: "minimap", role: "img", "aria-label": label });
    const go = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const share = (event.clientY - box.top) / box.height;
      const { scroller } = spine;
      scroller.scrollTop = share * scroller.scrollHeight - scroller.clientHeight / 2;
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) go(event);
    });
    this.lines = new Float32Array(0);
  }

  // `join` says how two weights become one
  update(weights, palette, join) {
    this.lines = weights ? this.spine.byLine(weights, join) : new Float32Array(0);
    this.join = join;
    this.palette = palette;
    this.draw();
  }

  draw() {
    const { starts, height = 0, top: scrolled = 0 } = this.spine;
    const whole = starts.length * LINE;
    const isLong = whole > height + LINE;
    this.canvas.hidden = !isLong;
    if (!isLong || !this.palette) return;
    const context = sized(this.canvas, WIDTH, height);
    const rows = Math.min(Math.floor(height / 2), starts.length);
    const bars = new Float32Array(rows);
    this.lines.forEach((weight, line) => {
      const row = Math.min(rows - 1, Math.floor((line * rows) / starts.length));
      bars[row] = this.join(bars[row], weight);
    });
    const largest = bars.reduce((most, bar) => Math.max(most, bar), 0) || 1;
    const tall = height / rows;
    context.globalAlpha = 0.6;
    context.fillStyle = this.palette.line;
    const top = (scrolled / whole) * height;
    const seen = Math.max(6, (height / whole) * height);
    context.fillRect(0, top, WIDTH, seen);
    context.globalAlpha = 1;
    context.fillStyle = this.palette.css[Math.round(0.8 * (this.palette.css.length - 1))];
    bars.forEach((bar, row) => {
      const wide = (bar / largest) * (WIDTH - 8);
      if (wide > 0.3) context.fillRect(4, row * tall, Math.max(1, wide), Math.max(1, tall - 1));
    });
  }
}
