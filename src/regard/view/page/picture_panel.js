// The picture with the heat of what was looked at in it; what is pointed at there lights the words that looked.

import { element, keepingFocus, sized } from "./dom.js";
import { format } from "./language.js";
import { middle } from "./pictures.js";

// from no weight to the largest: red, green, blue, and how much of the picture it covers
const HEAT = [[252, 237, 140, 0], [252, 184, 50, 0.55], [237, 97, 20, 0.78], [173, 13, 26, 0.88]];
const STEPS = 256;
const [LEAST, TALLEST] = [120, 440];
const DRAG = 4;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class PicturePanel {
  // `set` changes what is chosen
  constructor(view, set) {
    Object.assign(this, { view, set, room: [0, 0], cursor: null, drawnFor: "" });
    const canvas = (name) => element("canvas", { class: name });
    [this.photo, this.heat, this.edges, this.marks] = ["photo", "heat", "edges", "marks"].map(canvas);
    this.box = element("div", { class: "picture", tabindex: "0", role: "application" }, this.photo, this.heat, this.edges, this.marks);
    this.head = element("div", { class: "panel-head" });
    this.scale = element("div", { class: "scale" });
    this.caption = element("p", { class: "readout" });
    this.readout = element("p", { class: "readout", "aria-live": "polite" });
    this.body = element("div", { class: "picture-room" }, this.box);
    this.foot = element("div", { class: "picture-foot" }, this.scale, this.readout);
    this.panel = element("section", { class: "panel pictures" }, this.head, this.body, this.foot);
    this.colours = ramp();
    // asked for once, since asking makes the browser lay out the page
    this.observer = new ResizeObserver(([{ contentRect }]) => {
      const room = [Math.floor(contentRect.width), Math.floor(contentRect.height)];
      if (String(room) === String(this.room)) return;
      this.room = room;
      this.set({});
    });
    this.observer.observe(this.body);
    this.listen();
  }

  listen() {
    const { box } = this;
    box.addEventListener("pointermove", (event) => this.move(event));
    box.addEventListener("pointerleave", () => this.point(null));
    box.addEventListener("pointerdown", (event) => {
      box.setPointerCapture(event.pointerId);
      this.drag = { from: this.place(event), x: event.offsetX, y: event.offsetY, box: null };
    });
    box.addEventListener("pointerup", (event) => this.release(event));
    // a finger scrolls the page
    box.addEventListener("pointercancel", () => {
      this.drag = null;
      this.mark();
    });
    box.addEventListener("keydown", (event) => this.key(event));
    box.addEventListener("blur", () => this.point(null));
  }

  get canvas() {
    const { kind, image } = this.view;
    return kind?.canvases[image] ?? kind?.canvases[0];
  }

  update() {
    if (!this.canvas) return;
    this.title();
    this.fit();
    this.draw();
  }

  title() {
    const { view, canvas } = this;
    const { words, kind, current } = view;
    const shares = current.vector ? kind.canvases.map((each) => format(each.share(current.vector, view.join))) : [];
    const sign = [view.language, kind.kind, view.hasGrid, canvas.image, view.exact].join();
    if (sign !== this.sign) {
      this.sign = sign;
      this.cursor = null;
      keepingFocus(this.head, () => this.build());
      this.box.setAttribute("aria-label", `${words.imageName(canvas.image + 1)}: ${kind.isImage ? words.patchHint : words.pictureHint}`);
    }
    shares.forEach((share, place) => {
      if (this.shares[place].textContent !== share) this.shares[place].textContent = share;
    });
  }

  build() {
    const { view, canvas } = this;
    const { words, kind } = view;
    this.shares = kind.canvases.map(() => element("b", {}));
    const names = kind.canvases.map((each, place) => [words.imageName(each.image + 1), " ", this.shares[place]]);
    const tabs = kind.canvases.map((each, place) =>
      element("button", { class: "tab", "aria-pressed": String(each === canvas), onclick: () => this.set({ image: place, spot: null }) }, ...names[place]),
    );
    const slider = element("input", { type: "range", min: 0, max: 100, value: Math.round(100 * view.heat), oninput: () => this.strength(slider.value / 100) });
    const box = element("input", { type: "checkbox", checked: view.hasGrid, onchange: () => this.set({ hasGrid: box.checked }) });
    this.head.replaceChildren(
      ...(tabs.length > 1 ? tabs : [element("h2", {}, ...names[0])]),
      element("span", { class: "grow" }),
      element("label", { class: "check" }, words.heat, slider),
      element("label", { class: "check" }, box, words.edges),
    );
    const { name, width, height, bytes } = canvas.picture;
    this.caption.textContent = words.pictureFacts(/^image \d+$/.test(name) ? "" : name, width, height, size(bytes), words.patchCount(canvas.count, canvas.rows, canvas.columns));
    this.head.append(this.caption);
    this.strength(view.heat);
  }

  // 0 is the picture in its own colours
  strength(heat) {
    this.view.heat = heat;
    this.heat.style.opacity = heat;
    this.photo.style.filter = `grayscale(${Math.min(1, 2 * heat)})`;
  }

  fit() {
    const { canvas, room } = this;
    const { width, height } = canvas.picture;
    const tallest = this.isFree && !this.view.isNarrow ? Math.max(LEAST, room[1]) : TALLEST;
    const shrunk = Math.min(Math.max(LEAST, room[0]) / width, tallest / height);
    const [wide, tall] = [Math.max(1, Math.round(width * shrunk)), Math.max(1, Math.round(height * shrunk))];
    const sign = [canvas.image, wide, tall, this.view.kind.kind, devicePixelRatio].join();
    if (sign !== this.drawnFor) this.begin(sign, wide, tall, shrunk);
    this.grid();
  }

  // at another size, or with another picture
  begin(sign, wide, tall, shrunk) {
    const { canvas } = this;
    Object.assign(this, { drawnFor: sign, wide, tall, shrunk });
    this.box.style.width = `${wide}px`;
    this.box.style.height = `${tall}px`;
    this.photograph();
    // which cell each pixel is in
    const cells = (edges, count) => {
      let cell = 0;
      return Int32Array.from({ length: count }, (_, pixel) => {
        while (cell < edges.length - 2 && edges[cell + 1] * shrunk <= pixel + 0.5) cell++;
        return cell;
      });
    };
    [this.across, this.down] = [cells(canvas.xs, wide), cells(canvas.ys, tall)];
    [this.heat.width, this.heat.height] = [wide, tall];
    this.image = new ImageData(wide, tall);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.paints = new Uint32Array(canvas.values.length);
  }

  async photograph() {
    const { canvas, drawnFor, wide, tall, view } = this;
    const draw = (paint) => {
      if (this.drawnFor === drawnFor) paint(sized(this.photo, wide, tall));
    };
    draw((context) => {
      context.fillStyle = "#8c8c8c";
      context.fillRect(0, 0, wide, tall);
    });
    try {
      const bitmap = await view.reading.bitmap(canvas.picture);
      draw((context) => {
        context.imageSmoothingQuality = "high";
        // white shines through where it is transparent
        context.fillStyle = "#ffffff";
        context.fillRect(0, 0, wide, tall);
        context.drawImage(bitmap, 0, 0, wide, tall);
        this.box.dataset.shown = canvas.image;
      });
    } catch (error) {
      this.failure = error.message || error.name;
      this.tell();
    }
  }

  grid() {
    const { canvas, wide, tall, shrunk } = this;
    const sign = `${this.drawnFor} ${this.view.hasGrid}`;
    if (sign === this.edgesFor) return;
    this.edgesFor = sign;
    const context = sized(this.edges, wide, tall);
    if (!this.view.hasGrid) return;
    context.strokeStyle = "rgb(255 255 255 / 70%)";
    context.lineWidth = 0.6;
    context.beginPath();
    for (const [left, top, right, bottom] of canvas.boxes) {
      context.rect(left * shrunk, top * shrunk, (right - left) * shrunk, (bottom - top) * shrunk);
    }
    context.stroke();
  }

  // what is shown as heat: what the chosen rows looked at or, of patches, which of them looked at those that are marked
  weights() {
    const { current, usage, region, kind } = this.view;
    if (kind.isImage && region && usage && current.tokens === null) return usage.byToken;
    return current.vector;
  }

  draw() {
    const { view, canvas, across, down, wide, tall, image, pixels, paints, colours } = this;
    const weights = this.weights();
    const context = this.heat.getContext("2d");
    if (!weights) context.clearRect(0, 0, wide, tall);
    else if (weights !== this.shown?.weights || this.shown.image !== image) {
      const { values, largest } = canvas.heat(weights, view.join);
      const columns = canvas.xs.length - 1;
      values.forEach((value, cell) => (paints[cell] = colours[largest > 0 ? Math.round((value / largest) * (STEPS - 1)) : 0]));
      let before = -1;
      for (let y = 0; y < tall; y++) {
        const [start, row] = [y * wide, down[y]];
        if (row === before) pixels.copyWithin(start, start - wide, start);
        else for (let x = 0; x < wide; x++) pixels[start + x] = paints[row * columns + across[x]];
        before = row;
      }
      context.putImageData(image, 0, 0);
      this.legend(largest);
      this.shown = { weights, image };
    }
    this.mark();
    this.tell();
  }

  legend(largest) {
    const { view, canvas } = this;
    const { words } = view;
    const label = view.isLargest ? words.largestScale : canvas.isPlain ? words.patchScale : words.pixelScale(Math.round(canvas.unit));
    if (!this.ramp) {
      this.ramp = element("i", { class: "ramp" });
      // as it is over a picture in grey
      const stops = HEAT.map(([red, green, blue, covers], place) => `rgb(${[red, green, blue].map((part) => Math.round(part * covers + 140 * (1 - covers)))}) ${(100 * place) / (HEAT.length - 1)}%`);
      this.ramp.style.background = `linear-gradient(to right, ${stops.join()})`;
      this.names = [element("span", {}), element("span", { class: "tick" }, "0"), element("span", { class: "tick" })];
      this.scale.replaceChildren(this.names[0], this.names[1], this.ramp, this.names[2]);
    }
    this.names[0].textContent = label;
    this.names[2].textContent = largest ? format(largest) : "";
  }

  mark() {
    const { view, canvas, wide, tall, shrunk, cursor, drag } = this;
    const { region, spot, kind, hover, pinned } = view;
    const looking = kind.isImage ? [pinned ?? hover] : [];
    const lit = [...(region?.image === canvas.image ? region.tokens : []), ...(spot?.image === canvas.image ? spot.tokens : []), ...looking];
    const sign = [lit.join(), cursor, drag?.box, this.drawnFor, view.theme].join("|");
    if (sign === this.markedFor) return;
    this.markedFor = sign;
    const context = sized(this.marks, wide, tall);
    const outline = (boxes, colour, width) => {
      context.strokeStyle = colour;
      context.lineWidth = width;
      for (const [left, top, right, bottom] of boxes) context.strokeRect(left * shrunk, top * shrunk, (right - left) * shrunk, (bottom - top) * shrunk);
    };
    const boxes = lit.flatMap((token) => (canvas.patchOf.has(token) ? [canvas.boxes[canvas.patchOf.get(token)]] : []));
    for (const each of [boxes, drag?.box ? [drag.box] : []]) {
      outline(each, "#ffffff", 3.5);
      outline(each, "#1c1a17", 1.5);
    }
  }

  // what is pointed at, and how much of the weight is there
  tell() {
    const { view, canvas } = this;
    const { words, current, usage, spot, region } = view;
    const tokens = (spot ?? region)?.tokens ?? (view.kind.isImage && view.hover !== null && canvas.patchOf.has(view.hover) ? [view.hover] : null);
    let told = this.failure ? words.noPicture(this.failure) : view.kind.isImage ? words.patchHint : words.pictureHint;
    if (tokens && current.vector) {
      const share = tokens.reduce((sum, token) => view.join(sum, current.vector[token]), 0);
      const name = tokens.map((token) => view.spanName(view.kind.looked, [token, token + 1]));
      told = `${name.length > 3 ? words.patches(tokens.length, canvas.image + 1) : name.join(" + ")} · ${format(share)}`;
      const best = usage?.byUnit.indexOf(usage.largest) ?? -1;
      if (best >= 0 && usage.largest > 0 && !view.kind.isImage) told += ` · ${words.mostBy(view.matrix.rows[best].name, format(usage.largest))}`;
    }
    if (this.readout.textContent !== told) this.readout.textContent = told;
  }

  place({ offsetX, offsetY }) {
    return [offsetX / this.shrunk, offsetY / this.shrunk];
  }

  move(event) {
    const { drag } = this;
    if (!drag || Math.hypot(event.offsetX - drag.x, event.offsetY - drag.y) < DRAG) {
      if (!drag?.box) this.point(this.canvas.under(...this.place(event)));
      return;
    }
    const [[x, y], [toX, toY]] = [drag.from, this.place(event)];
    drag.box = [Math.min(x, toX), Math.min(y, toY), Math.max(x, toX), Math.max(y, toY)];
    this.point(this.canvas.within(drag.box));
    this.mark();
  }

  release(event) {
    const { drag, canvas } = this;
    this.drag = null;
    if (!drag) return;
    const patches = drag.box ? canvas.within(drag.box) : canvas.under(...drag.from);
    if (patches.length) this.choose(patches, { adds: event.shiftKey, marks: Boolean(drag.box) });
    this.mark();
  }

  // lights what looked there or, of patches, shows what the smallest of them looked at
  point(patches) {
    const { view, canvas } = this;
    const tokens = patches?.length ? patches.map((patch) => canvas.tokens[patch]) : null;
    if (view.kind.isImage) {
      const hover = tokens && !view.region && view.kind.rowOf.has(tokens[0]) ? tokens[0] : null;
      if (view.hover !== hover) this.set({ hover });
      return;
    }
    const spot = tokens && { image: canvas.image, tokens };
    if (String(view.spot?.tokens) !== String(tokens ?? undefined)) this.set({ spot });
  }

  // marks patches, or lets go of them; of patches that look a click pins what was pointed at
  choose(patches, { adds, marks }) {
    const { view, canvas } = this;
    const tokens = patches.map((patch) => canvas.tokens[patch]);
    if (view.kind.isImage && !adds && !marks) {
      const isSame = view.pinned === tokens[0] || view.region;
      this.set({ pinned: isSame || !view.kind.rowOf.has(tokens[0]) ? null : tokens[0], region: null, walking: false });
      return;
    }
    const before = adds && view.region?.image === canvas.image ? view.region.tokens : [];
    const isSame = tokens.every((token) => view.region?.tokens.includes(token)) && (adds || tokens.length === view.region.tokens.length);
    const rest = isSame ? before.filter((token) => !tokens.includes(token)) : [...new Set([...before, ...tokens])];
    const region = rest.length ? { image: canvas.image, tokens: rest } : null;
    this.set({ region, spot: null, ...(view.kind.isImage ? { hover: null } : {}) });
  }

  key(event) {
    const { canvas } = this;
    if (event.key in MOVES) {
      this.cursor = this.cursor === null ? nearest(canvas) : canvas.beside(this.cursor, MOVES[event.key]);
      // all that is at the place, as under a pointer
      this.point(canvas.under(...middle(canvas.boxes[this.cursor])));
    } else if ((event.key === "Enter" || event.key === " ") && this.cursor !== null) {
      this.choose(canvas.under(...middle(canvas.boxes[this.cursor])), { adds: event.shiftKey, marks: false });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// the smallest patch at the upper left
function nearest(canvas) {
  const far = ([left, top]) => left + top;
  return canvas.boxes.reduce((best, box, patch) => (far(box) + canvas.sizes[patch] * 1e-6 < far(canvas.boxes[best]) + canvas.sizes[best] * 1e-6 ? patch : best), 0);
}

// as little-endian pixels, which every browser's machine has
function ramp() {
  return Uint32Array.from({ length: STEPS }, (_, step) => {
    const at = (step / (STEPS - 1)) * (HEAT.length - 1);
    const low = Math.min(HEAT.length - 2, Math.floor(at));
    const [red, green, blue, covers] = HEAT[low].map((part, channel) => part + (at - low) * (HEAT[low + 1][channel] - part));
    return ((Math.round(255 * covers) << 24) | (Math.round(blue) << 16) | (Math.round(green) << 8) | Math.round(red)) >>> 0;
  });
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
