// Running text broken into lines before any of it is drawn, so that only lines in sight need to be in the page.

import { printable } from "./printable.js";

const WIDE = /[\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef]|[\u{20000}-\u{3ffff}]/u;

// what is shown of tokens from `from` to before `to`, and of what no token holds; what `fold` gives a label is one piece
export function pieces(sequence, from, to, fold) {
  const found = [];
  const pieceOf = new Int32Array(Math.max(0, to - from));
  let at = from < to ? sequence.starts[from] : 0;
  for (let token = from; token < to; token++) {
    const [start, end] = [sequence.starts[token], sequence.ends[token]];
    const folding = fold(token);
    if (folding) {
      const { label, last, isInline } = folding;
      const folded = show(sequence.text.slice(start, sequence.ends[last]));
      found.push({ ...piece(label, last, false), folded, isInline });
      pieceOf.fill(found.length - 1, token - from, last + 1 - from);
      at = sequence.ends[last];
      token = last;
      continue;
    }
    if (start === end) {
      found.push(piece(sequence.names[token], token, true));
    } else if (end <= at && found.length && found[found.length - 1].token >= 0) {
      // the rest of a letter whose bytes are several tokens
      found[found.length - 1].last = token;
    } else {
      if (start > at) found.push(piece(sequence.text.slice(at, start), -1, false));
      found.push(piece(sequence.text.slice(Math.max(at, start), end), token, false));
      at = end;
    }
    pieceOf[token - from] = found.length - 1;
  }
  return { list: found, pieceOf, from, to };
}

function piece(text, token, isNamed) {
  const breaks = text.split("\n").length - 1;
  const bare = text.replace(/^ +/, "");
  // a new line is a token like others, and can be looked at
  const lead = bare ? text.length - bare.length : 0;
  return { shown: show(bare || text), lead, token, last: token, breaks, isNamed };
}

function show(text) {
  return [...text].map((letter) => (letter === "\n" ? "↵" : printable(letter))).join("");
}

// the first piece of every line, greedily filled; a blank line begins with the piece that follows it
export function lines({ list }, width, measure) {
  const starts = [0];
  const space = measure(" ");
  let used = 0;
  let index = 0;
  while (index < list.length) {
    // pieces that no line may part
    let [end, wide] = [index, 0];
    do {
      const { shown, lead, isNamed, breaks, folded } = list[end];
      wide += measure(shown) + (lead ? lead * space : 0) + (isNamed ? 14 : folded ? 24 : 0);
      end += 1;
      if (breaks) break;
    } while (end < list.length && !mayPart(list[end - 1], list[end]) && wide < width);
    // a message begins a line
    if (used && ((list[index].folded && !list[index].isInline) || used + wide > width)) {
      starts.push(index);
      used = 0;
    }
    used += wide;
    const last = list[end - 1];
    if (last.breaks) {
      if (last.breaks > 1 && end < list.length) starts.push(end);
      starts.push(end);
      used = 0;
    }
    index = end;
  }
  if (starts[starts.length - 1] >= list.length && starts.length > 1) starts.pop();
  return Int32Array.from(starts);
}

function mayPart(before, after) {
  if (after.lead || before.isNamed || after.isNamed || before.folded || after.folded) return true;
  const [end, begin] = [before.shown, after.shown];
  return end.endsWith(" ") || begin.startsWith(" ") || WIDE.test(end.slice(-1)) || WIDE.test(begin[0] ?? "");
}

const widths = new Map();
// of text in this font, each asked of the browser only once
export function measuring(font) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = font;
  const known = widths.get(font) ?? widths.set(font, new Map()).get(font);
  return (text) => {
    let width = known.get(text);
    if (width === undefined) known.set(text, (width = context.measureText(text).width));
    return width;
  };
}
