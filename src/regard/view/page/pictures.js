// Pictures as a kind of attention looks at them: which pixels each patch covers, and how weights lie over them.

// edges of patches closer than a thousandth of a pixel are one edge
const DIGITS = 1000;

// of a sequence the number of the picture's stretch that a token is in, or -1; null where it has none
export function stretches({ folds, ids }) {
  if (!folds) return null;
  const found = new Int32Array(ids.length + 1).fill(-1);
  folds.forEach(({ first, last }, fold) => found.fill(fold, first, last));
  return found;
}

// the pictures of which a kind has patches among its keys
export function canvases(kind, media = []) {
  const { areas } = kind.looked;
  if (!areas) return [];
  const pictures = media.flatMap((each, number) => (each.sort === "image" ? [{ ...each, number }] : []));
  return pictures.flatMap((picture, image) => {
    const own = [];
    areas.tokens.forEach((token, place) => {
      if (areas.image[place] === image && token < kind.keys) own.push(place);
    });
    const canvas = own.length ? new Canvas(picture, image, areas, own) : null;
    return canvas?.count ? [canvas] : [];
  });
}

class Canvas {
  constructor(picture, image, areas, own) {
    Object.assign(this, { picture, image, unplaced: 0 });
    const { width, height } = picture;
    const limits = [width, height, width, height];
    const boxes = [];
    const tokens = [];
    for (const place of own) {
      const box = limits.map((limit, side) => Math.min(limit, areas.boxes[4 * place + side]));
      // what was added around a picture has no pixel of it
      if (box[2] > box[0] && box[3] > box[1]) {
        boxes.push(box);
        tokens.push(areas.tokens[place]);
      }
    }
    this.count = tokens.length;
    this.tokens = Int32Array.from(tokens);
    this.boxes = boxes;
    this.xs = edges(boxes, 0, width);
    this.ys = edges(boxes, 1, height);
    const [across, down] = [places(this.xs), places(this.ys)];
    this.cells = boxes.map(([left, top, right, bottom]) => [at(across, left), at(down, top), at(across, right), at(down, bottom)]);
    this.sizes = boxes.map(([left, top, right, bottom]) => (right - left) * (bottom - top));
    this.unit = usual(this.sizes);
    this.isPlain = this.sizes.every((size) => Math.abs(size - this.unit) < 0.01 * this.unit) && !this.overlaps();
    const { rows, columns } = grid(areas, own);
    Object.assign(this, { rows, columns });
    this.patchOf = new Map(tokens.map((token, patch) => [token, patch]));
    this.nameOf = new Map(own.map((place) => [areas.tokens[place], [areas.row[place], areas.column[place]]]));
    this.values = new Float32Array((this.xs.length - 1) * (this.ys.length - 1));
  }

  overlaps() {
    const covered = new Uint8Array((this.xs.length - 1) * (this.ys.length - 1));
    return this.cells.some(([left, top, right, bottom]) => {
      let found = false;
      for (let row = top; row < bottom; row++) {
        for (let column = left; column < right; column++) {
          const cell = row * (this.xs.length - 1) + column;
          found ||= covered[cell] === 1;
          covered[cell] = 1;
        }
      }
      return found;
    });
  }

  // weight for every `unit` pixels of each cell, all of it, and the largest; `join` says how two weights become one
  heat(weights, join) {
    const { values, tokens, cells, sizes, unit } = this;
    const wide = this.xs.length - 1;
    values.fill(0);
    let share = 0;
    for (let patch = 0; patch < tokens.length; patch++) {
      const weight = weights[tokens[patch]];
      share = join(share, weight);
      const density = (weight * unit) / sizes[patch];
      const [left, top, right, bottom] = cells[patch];
      for (let row = top; row < bottom; row++) {
        for (let cell = row * wide + left; cell < row * wide + right; cell++) values[cell] = join(values[cell], density);
      }
    }
    let largest = 0;
    for (let cell = 0; cell < values.length; cell++) if (values[cell] > largest) largest = values[cell];
    return { values, share, largest };
  }

  share(weights, join) {
    return this.tokens.reduce((sum, token) => join(sum, weights[token]), 0);
  }

  // the patches over a place of the picture, the smallest first
  under(x, y) {
    const found = [];
    this.boxes.forEach(([left, top, right, bottom], patch) => {
      if (left <= x && x < right && top <= y && y < bottom) found.push(patch);
    });
    return found.sort((one, other) => this.sizes[one] - this.sizes[other]);
  }

  // the patches whose middle is in a rectangle
  within([left, top, right, bottom]) {
    const found = [];
    this.boxes.forEach((box, patch) => {
      const [x, y] = middle(box);
      if (left <= x && x < right && top <= y && y < bottom) found.push(patch);
    });
    return found;
  }

  // the patch beside one, that way, which is nearest; itself where there is none
  beside(patch, [right, down]) {
    const [x, y] = middle(this.boxes[patch]);
    let [best, least] = [patch, Infinity];
    this.boxes.forEach((box, other) => {
      const [ahead, aside] = [(middle(box)[0] - x) * right + (middle(box)[1] - y) * down, Math.abs((middle(box)[0] - x) * down) + Math.abs((middle(box)[1] - y) * right)];
      if (ahead > 0.01 && ahead + 4 * aside < least) [best, least] = [other, ahead + 4 * aside];
    });
    return best;
  }
}

export const middle = ([left, top, right, bottom]) => [(left + right) / 2, (top + bottom) / 2];

function edges(boxes, axis, limit) {
  const all = boxes.flatMap((box) => [box[axis], box[axis + 2]]);
  const found = new Set([0, limit, ...all].map((edge) => Math.round(edge * DIGITS)));
  return Float64Array.from([...found].sort((one, other) => one - other), (edge) => edge / DIGITS);
}

const places = (sorted) => new Map([...sorted].map((edge, place) => [Math.round(edge * DIGITS), place]));
const at = (known, edge) => known.get(Math.round(edge * DIGITS));

// the size that most patches have
function usual(sizes) {
  const groups = new Map();
  const largest = sizes.reduce((most, size) => Math.max(most, size), 0);
  for (const size of sizes) {
    const name = Math.round((size / largest) * DIGITS);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(size);
  }
  const most = [...groups.values()].reduce((one, other) => (other.length > one.length || (other.length === one.length && other[0] < one[0]) ? other : one));
  return most.reduce((sum, size) => sum + size, 0) / most.length;
}

function grid(areas, own) {
  const all = new Set(own.map((place) => `${areas.row[place]} ${areas.column[place]}`));
  const [rows, columns] = [areas.row, areas.column].map((axis) => new Set(own.map((place) => axis[place])).size);
  return all.size === own.length && rows * columns === own.length ? { rows, columns } : { rows: null, columns: null };
}
