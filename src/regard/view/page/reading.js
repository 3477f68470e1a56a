// A reading as the viewer holds it: the header at once, tables of one layer after another as they are asked for.

import { regions } from "./chat.js";
import { canvases, stretches } from "./pictures.js";
import { track } from "./speech.js";
import { joining } from "./units.js";

const TYPES = { float32: Float32Array, uint16: Uint16Array, uint32: Uint32Array, uint8: Uint8Array };

// of a picture that is decoded, and of the longer side that is kept of it
const [MOST_PIXELS, LONGEST] = [100e6, 2048];

export class Reading {
  constructor(model) {
    const header = model.get("header");
    Object.assign(this, header);
    this.host = model;
    this.waiting = new Map();
    this.bitmaps = new Map();
    for (const sequence of Object.values(this.sequences)) sequence.stretchOf = stretches(sequence);
    model.on("msg:custom", (message, buffers) => this.receive(message, buffers));
    // of a kind without rows there is nothing to see, but where the strongest keys of all queries are known
    const isRead = (kind) => kind.rows.length > 0 || kind.hasTop();
    this.kinds = header.kinds.map((facts) => new Kind(this, facts)).filter(isRead);
  }

  // one answer for each question, however often it is put; `hear` is given what comes before it
  ask(message, hear) {
    const name = question(message);
    const open = this.waiting.get(name);
    if (open) return open.promise;
    const entry = { hear };
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    this.waiting.set(name, entry);
    this.host.send(message);
    return entry.promise;
  }

  // a picture, decoded once; the browser decodes no vector graphics this way, and runs nothing in them
  bitmap({ number, media_type: type, width, height }) {
    if (!this.bitmaps.has(number)) this.bitmaps.set(number, this.decoded(number, type, width, height));
    return this.bitmaps.get(number);
  }

  async decoded(number, type, width, height) {
    if (width * height > MOST_PIXELS) throw new Error(`${width} × ${height}`);
    const { view } = await this.ask({ type: "medium", number });
    const shrunk = Math.min(1, LONGEST / Math.max(width, height));
    const size = { resizeWidth: Math.ceil(width * shrunk), resizeHeight: Math.ceil(height * shrunk), resizeQuality: "high" };
    return createImageBitmap(new Blob([view], { type }), shrunk < 1 ? size : {});
  }

  // end a question that is under way: it is answered by null
  stop(message) {
    this.host.send({ type: "stop", asked: message });
  }

  receive(message, buffers) {
    const name = question(message.asked ?? message);
    const entry = this.waiting.get(name);
    if (!entry) return;
    if (message.type === "progress") {
      entry.hear?.(message);
      return;
    }
    this.waiting.delete(name);
    if (message.type === "error") entry.reject(new Error(message.message));
    else if (message.type === "stopped") entry.resolve(null);
    else entry.resolve({ message, view: buffers?.[0] });
  }
}

function question({ type, kind, measure, layer, head, row, key, start, end, grain, of, number }) {
  return JSON.stringify([type, kind, measure, layer, head, row, key, start, end, grain, of, number]);
}

// a table in the buffer that came, copied where its place does not suit its type
function table(view, { dtype, shape, offset }) {
  const Type = TYPES[dtype];
  const count = shape.reduce((product, size) => product * size, 1);
  const start = view.byteOffset + offset;
  if (start % Type.BYTES_PER_ELEMENT) {
    return new Type(view.buffer.slice(start, start + count * Type.BYTES_PER_ELEMENT));
  }
  return new Type(view.buffer, start, count);
}

export class Kind {
  constructor(reading, facts) {
    Object.assign(this, facts);
    this.reading = reading;
    this.sequence = reading.sequences[facts.query];
    this.looked = reading.sequences[facts.key];
    this.within = facts.query === facts.key;
    this.tables = new Array(this.layers.length).fill(null);
    this.means = {};
    this.cache = new Map();
    // head number `first[i] + h` is head h of the i-th layer
    this.first = [];
    let count = 0;
    for (const { heads } of this.layers) {
      this.first.push(count);
      count += heads;
    }
    this.heads = count;
    // a row is told by the token that it wrote or, of an encoder, by the token that looks
    const shift = facts.writes ? 1 : 0;
    this.rowOf = new Map(facts.rows.map((position, row) => [position + shift, row]));
    this.tokenOf = facts.rows.map((position) => position + shift);
    this.lookup = decoding(reading.rounding);
    this.regions = regions(this, reading.settings);
    this.canvases = canvases(this, reading.media);
    this.track = track(this, reading);
    // whether patches look, and no text: then a place in the picture is asked what it looked at
    this.isImage = this.within && this.canvases.length > 0 && this.sequence.ids.every((id) => id < 0);
  }

  get size() {
    return this.sequence.ids.length;
  }

  // the layer and head of a head's number
  place(head) {
    let layer = this.first.length - 1;
    while (this.first[layer] > head) layer--;
    return [layer, head - this.first[layer]];
  }

  // the number of the rows that belong to the answer, or of all
  answerRows() {
    const rows = this.rows.map((_, row) => row).filter((row) => this.rows[row] >= this.prompt - 1);
    return rows.length ? rows : this.rows.map((_, row) => row);
  }

  async loadMean(measure) {
    if (this.means[measure]) return;
    const { view } = await this.reading.ask({ type: "mean", kind: this.kind, measure });
    const shape = [this.rows.length, this.keys];
    this.means[measure] = table(view, { dtype: "float32", shape, offset: 0 });
  }

  async loadLayer(index) {
    if (this.tables[index]) return;
    const { layer, parts } = this.layers[index];
    const { view } = await this.reading.ask({ type: "layer", kind: this.kind, layer });
    this.tables[index] = Object.fromEntries(
      parts.map((part) => [part.name, { ...part, values: table(view, part) }]),
    );
  }

  has(index) {
    return this.tables[index] !== null;
  }

  get complete() {
    return this.tables.every((found) => found !== null);
  }

  // whether a choice of heads can be shown with what has come so far
  ready({ heads, reduce, measure }) {
    if (!heads && reduce === "mean") return Boolean(this.means[measure]);
    if (!heads) return this.complete;
    return [...heads].every((head) => this.has(this.place(head)[0]));
  }

  // of one kept row the weight of every key: the mean or largest of the chosen heads, all if null
  row(row, choice) {
    const { heads, reduce, measure } = choice;
    if (this.reading.statistics[measure]?.axes[0] === "row" || (!heads && reduce === "mean")) {
      return this.means[measure].subarray(row * this.keys, (row + 1) * this.keys);
    }
    const name = `${measure} ${reduce} ${heads ? [...heads].join() : ""}`;
    let rows = this.cache.get(name);
    if (!rows) {
      // the tables of a few choices are kept, each [row, key]
      if (this.cache.size >= 4) this.cache.delete(this.cache.keys().next().value);
      this.cache.set(name, (rows = new Map()));
    }
    let found = rows.get(row);
    if (!found) rows.set(row, (found = this.reduced(row, choice)));
    return found;
  }

  reduced(row, { heads, reduce, measure }) {
    const found = new Float32Array(this.keys);
    const byLayer = new Map();
    for (const head of heads ?? Array.from({ length: this.heads }, (_, number) => number)) {
      const [layer, own] = this.place(head);
      if (!byLayer.has(layer)) byLayer.set(layer, []);
      byLayer.get(layer).push(own);
    }
    let count = 0;
    for (const [layer, own] of byLayer) {
      const { values, shape, top } = this.tables[layer][measure];
      const decoded = this.lookup(top);
      const [, rows, keys] = shape;
      for (const head of own) {
        const start = (head * rows + row) * keys;
        if (reduce === "max") {
          for (let key = 0; key < keys; key++) found[key] = Math.max(found[key], decoded[values[start + key]]);
        } else {
          for (let key = 0; key < keys; key++) found[key] += decoded[values[start + key]];
        }
        count += 1;
      }
    }
    if (reduce !== "max") for (let key = 0; key < found.length; key++) found[key] /= count;
    return found;
  }

  // a weight of each head on some keys, NaN where its layer has not come
  byHead(rows, marked) {
    const found = new Float32Array(this.heads).fill(NaN);
    for (let layer = 0; layer < this.layers.length; layer++) {
      if (!this.has(layer)) continue;
      const { values, shape, top } = this.tables[layer].weights;
      const decoded = this.lookup(top);
      const [heads, count, keys] = shape;
      for (let head = 0; head < heads; head++) {
        let sum = 0;
        for (const row of rows) {
          const at = (head * count + row) * keys;
          for (const key of marked) if (key < keys) sum += decoded[values[at + key]];
        }
        found[this.first[layer] + head] = sum / rows.length;
      }
    }
    return found;
  }

  // a query whose row was not kept: only its strongest keys are known
  hasTop() {
    return this.layers.every(({ parts }) => parts.some(({ name }) => name === "top_positions"));
  }

  top(query, { heads, reduce }) {
    const join = joining(reduce === "max");
    const found = new Float32Array(this.keys);
    let count = 0;
    for (let layer = 0; layer < this.layers.length; layer++) {
      if (!this.has(layer)) continue;
      const { values, shape } = this.tables[layer].top_positions;
      const weights = this.tables[layer].top_weights.values;
      const decoded = this.lookup(1);
      const [own, queries, k] = shape;
      for (let head = 0; head < own; head++) {
        if (heads && !heads.has(this.first[layer] + head)) continue;
        const at = (head * queries + query) * k;
        for (let place = at; place < at + k; place++) {
          const key = values[place];
          if (key < this.keys) found[key] = join(found[key], decoded[weights[place]]);
        }
        count += 1;
      }
    }
    if (reduce !== "max") for (let key = 0; key < found.length; key++) found[key] /= count || 1;
    return found;
  }
}

// what each of the 256 codes stands for
function decoding({ floor, steps }) {
  const tables = new Map();
  return (top) => {
    let found = tables.get(top);
    if (!found) {
      found = new Float32Array(256);
      for (let code = 1; code < 256; code++) found[code] = top * floor ** (1 - (code - 1) / steps);
      tables.set(top, found);
    }
    return found;
  };
}
