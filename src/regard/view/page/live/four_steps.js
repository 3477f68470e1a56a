// Self-attention in four steps with every matrix on the way, as attention/self_attention.py and view/steps.py have them.
//
// Vaswani et al. 2017, section 3.2; the steps and their example follow Raschka 2024, "Build a large language model (from
// scratch)", chapter 3.

import { embedding } from "./random.js";

export const [HEAD_DIM, MOST_TOKENS, LONGEST_TOKEN] = [2, 32, 40];

const transposed = (matrix) => matrix[0].map((_, column) => matrix.map((row) => row[column]));
export const times = (one, two) => {
  const columns = transposed(two);
  return one.map((row) => columns.map((column) => row.reduce((sum, value, place) => sum + value * column[place], 0)));
};
const columns = (matrix, from, to) => matrix.map((row) => row.slice(from, to));
const besides = (one, two) => one.map((row, place) => [...row, ...two[place]]);
const each = (matrix, change) => matrix.map((row, query) => row.map((value, key) => change(value, query, key)));

function softmaxed(matrix) {
  return matrix.map((row) => {
    const largest = Math.max(...row);
    const powers = row.map((score) => Math.exp(score - largest));
    const sum = powers.reduce((total, power) => total + power, 0);
    return powers.map((power) => power / sum);
  });
}

/** One head of step 2: queries, keys and values by these matrices, and what follows from them. */
function head(inputs, matrices, isCausal) {
  const [query, key, value] = matrices.map((matrix) => times(inputs, matrix));
  const scores = times(query, transposed(key));
  const scaled = each(scores, (score) => score / Math.sqrt(HEAD_DIM));
  const masked = isCausal ? each(scaled, (score, row, column) => (column > row ? -Infinity : score)) : scaled;
  const weights = softmaxed(masked);
  return { query, key, value, scores, scaled, masked, weights, context: times(weights, value) };
}

/** All four, from embeddings [position dim]; `start` is weights/self-attention.json. */
export function fourSteps(inputs, { parameters, dropout, kept }) {
  const matrices = (index) =>
    ["query", "key", "value"].map((name) => columns(parameters[name], index * HEAD_DIM, (index + 1) * HEAD_DIM));
  const scores = times(inputs, transposed(inputs));
  const weights = softmaxed(scores);
  const simple = { scores, weights, context: times(weights, inputs) };
  const trainable = { matrices: matrices(0), ...head(inputs, matrices(0), false) };
  const causal = head(inputs, matrices(0), true);
  const mask = kept[inputs.length - 1];
  causal.dropped = each(causal.weights, (weight, row, column) =>
    mask[row * inputs.length + column] === "1" ? weight / (1 - dropout) : 0,
  );
  causal.trainingContext = times(causal.dropped, causal.value);
  const second = { matrices: matrices(1), ...head(inputs, matrices(1), true) };
  const joined = besides(causal.context, second.context);
  return { simple, trainable, causal, multi: { second, joined, out: parameters.out, output: times(joined, parameters.out) } };
}

// as data/words.py cuts, for Chinese and Japanese; other scripts without spaces are whole words here
const WORDS = /[\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f]|[^\s\u200b\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f]+/gu;

/** The words of a text, each cut to what a table's label can hold, and how many were left out. */
export function tokensOf(text) {
  const words = text.match(WORDS) ?? [];
  const isCut = words.some((word) => [...word].length > LONGEST_TOKEN) || words.length > MOST_TOKENS;
  return { tokens: words.slice(0, MOST_TOKENS).map((word) => [...word].slice(0, LONGEST_TOKEN).join("")), isCut };
}

export const embeddings = (tokens) => tokens.map((token) => embedding(token));
