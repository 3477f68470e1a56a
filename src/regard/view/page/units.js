// Tokens grouped as a reader counts them: token, word, sentence, paragraph.

import { printable } from "./printable.js";

export const GRAINS = ["token", "word", "sentence", "paragraph"];

// of each token the number of its unit, and of each unit its tokens from first to before last; no unit goes past its
// region, and a region of which `isWhole` says so is one unit
export function units(sequence, grain, count, regions, isWhole, keepsPatches) {
  const of = new Int32Array(count);
  const first = [];
  let before = null;
  for (let token = 0; token < count; token++) {
    const isOne = isWhole(regions.of[token]);
    const stretch = sequence.stretchOf?.[token] ?? -1;
    // of a picture the patches, or all of it
    const inPicture = grain === "token" || keepsPatches ? null : `picture ${stretch}`;
    const name = stretch >= 0 ? inPicture : isOne ? "whole" : place(sequence, grain, token);
    // the first token is apart, whatever follows it
    if (token < 2 || regions.of[token] !== regions.of[token - 1] || name !== before || name === null) first.push(token);
    of[token] = first.length - 1;
    before = name;
  }
  return { of, first, span: (unit) => [first[unit], unit + 1 < first.length ? first[unit + 1] : count] };
}

function place(sequence, grain, token) {
  if (grain === "token") return null;
  // what stands nowhere is by itself, and so is a token that is part of no word
  if (sequence.starts[token] === sequence.ends[token]) return null;
  if (grain === "word") return sequence.words[token] < 0 ? null : sequence.words[token];
  const starts = sequence[`${grain}s`];
  // a token that begins with the space before a sentence is part of it
  const text = sequence.text.slice(sequence.starts[token], sequence.ends[token]);
  const begin = sequence.ends[token] - text.trimStart().length;
  let [low, high] = [0, starts.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle] <= begin) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// the first of sorted places, from `low` to before `high`, that is not below this one, or `high`
export function before(places, value, low, high) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (places[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

// of a part of the text, in its letters, the tokens from first to before last, among so many
export function tokensOf({ starts, ends, text }, { start, end }, count) {
  const part = text.slice(start, end);
  return [
    before(ends, start + part.length - part.trimStart().length + 1, 0, count),
    before(starts, end - part.length + part.trimEnd().length, 0, count),
  ];
}

export function tokenText(sequence, token) {
  const [start, end] = [sequence.starts[token], sequence.ends[token]];
  return start === end ? sequence.names[token] : sequence.text.slice(start, end);
}

// the text of tokens from first to before last as one line
export function spanText(sequence, [first, last]) {
  if (last - first === 1) return printable(tokenText(sequence, first).trim() || tokenText(sequence, first));
  const [start, end] = [sequence.starts[first], sequence.ends[last - 1]];
  return printable(sequence.text.slice(start, end).replace(/\s+/g, " ").trim());
}

// how two weights become one: mean weights add up; the largest of several heads do not, they are of different heads
export const joining = (isLargest) => (isLargest ? Math.max : (one, other) => one + other);

export function joined(weights, grouped, join) {
  const found = new Float32Array(grouped.first.length);
  weights.forEach((weight, key) => (found[grouped.of[key]] = join(found[grouped.of[key]], weight)));
  return found;
}
