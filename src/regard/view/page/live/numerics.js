// The arithmetic that every model here is made of. Numbers are float32 in memory; sums run in float64, JavaScript's own.

/** weight · x + bias, for a weight of `rows` rows, each as long as x; `from` is the first row that is used. */
export function linear({ data, columns }, x, bias, rows, from = 0) {
  const found = new Float32Array(rows);
  const even = columns - (columns % 4);
  for (let row = 0, start = from * columns; row < rows; row++, start += columns) {
    let a = bias ? bias[from + row] : 0;
    let b = 0;
    let c = 0;
    let d = 0;
    for (let column = 0; column < even; column += 4) {
      const at = start + column;
      a += data[at] * x[column];
      b += data[at + 1] * x[column + 1];
      c += data[at + 2] * x[column + 2];
      d += data[at + 3] * x[column + 3];
    }
    for (let column = even; column < columns; column++) a += data[start + column] * x[column];
    found[row] = a + b + c + d;
  }
  return found;
}

/** The product of `one` and the part of `two` that begins at `from`. */
export function dot(one, two, from = 0) {
  let sum = 0;
  for (let place = 0; place < one.length; place++) sum += one[place] * two[from + place];
  return sum;
}

export function softmax(scores) {
  const weights = new Float32Array(scores.length);
  let largest = -Infinity;
  for (let place = 0; place < scores.length; place++) if (scores[place] > largest) largest = scores[place];
  let sum = 0;
  for (let place = 0; place < scores.length; place++) sum += weights[place] = Math.exp(scores[place] - largest);
  for (let place = 0; place < scores.length; place++) weights[place] /= sum;
  return weights;
}

/** The sum of vectors, each times its weight; of each the `size` numbers that begin at `from`. */
export function mix(weights, vectors, size = vectors[0].length, from = 0) {
  const sum = new Float32Array(size);
  for (let place = 0; place < vectors.length; place++) {
    const [weight, vector] = [weights[place], vectors[place]];
    if (weight) for (let dim = 0; dim < size; dim++) sum[dim] += weight * vector[from + dim];
  }
  return sum;
}

export function plus(one, two) {
  const sum = new Float32Array(one.length);
  for (let place = 0; place < sum.length; place++) sum[place] = one[place] + two[place];
  return sum;
}

export function join(...parts) {
  const joined = new Float32Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Ba, Kiros and Hinton 2016, "Layer normalization". */
export function layerNorm(x, { weight, bias }) {
  let mean = 0;
  for (let place = 0; place < x.length; place++) mean += x[place];
  mean /= x.length;
  let variance = 0;
  for (let place = 0; place < x.length; place++) variance += (x[place] - mean) * (x[place] - mean);
  const scale = 1 / Math.sqrt(variance / x.length + 1e-5);
  const normed = new Float32Array(x.length);
  for (let place = 0; place < x.length; place++) normed[place] = (x[place] - mean) * scale * weight[place] + bias[place];
  return normed;
}

export function tanh(x) {
  const turned = new Float32Array(x.length);
  for (let place = 0; place < x.length; place++) turned[place] = Math.tanh(x[place]);
  return turned;
}

export const relu = (x) => x.map((value) => (value > 0 ? value : 0));
export const sigmoid = (value) => 1 / (1 + Math.exp(-value));

// the error function to 1.2e-7: Press et al. 1992, "Numerical recipes in C", section 6.2
const ERF = [0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223];

function erf(x) {
  const t = 1 / (1 + Math.abs(x) / 2);
  const tail = t * Math.exp(-x * x + ERF.reduce((sum, factor) => sum * t + factor, 0));
  return x < 0 ? tail - 1 : 1 - tail;
}

export const gelu = (x) => x.map((value) => (value / 2) * (1 + erf(value * Math.SQRT1_2)));

export function largest(scores) {
  let best = 0;
  for (let place = 1; place < scores.length; place++) if (scores[place] > scores[best]) best = place;
  return best;
}

/** The `count` largest, largest first: [place, value]. */
export function strongest(values, count) {
  return [...values.entries()].sort(([one, a], [two, b]) => b - a || one - two).slice(0, count);
}
