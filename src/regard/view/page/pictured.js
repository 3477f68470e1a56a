// Pictures in the text: what stands for one there, what it is called, and what of it is marked.

import { tokenText } from "./units.js";

// whether a token of a sequence stands for a picture, or is a separator within one
export const isPictured = (sequence, token) => (sequence.stretchOf?.[token] ?? -1) >= 0;

// the tokens of the picture that a token stands for, from first to before last
export function stretch(sequence, token) {
  const { first, last } = sequence.folds[sequence.stretchOf[token]];
  return [first, last];
}

function label({ words }, { image, patches, grid, gathered, is_sound: isSound }) {
  if (isSound) return words.sound(image === null ? null : image + 1, patches);
  return words.picture(image === null ? null : image + 1, patches, grid, gathered);
}

// a picture is one piece of the text
export function pictureFold(view, token, sequence) {
  if (!isPictured(sequence, token)) return null;
  const fold = sequence.folds[sequence.stretchOf[token]];
  return { label: label(view, fold), last: fold.last - 1, isInline: true };
}

// what tokens within one picture are called; null of others
export function pictureName(view, sequence, [first, last]) {
  if (!isPictured(sequence, first) || sequence.stretchOf[first] !== sequence.stretchOf[last - 1]) return null;
  const fold = sequence.folds[sequence.stretchOf[first]];
  if (first === fold.first && last === fold.last && (last - first > 1 || fold.patches > 1)) return label(view, fold);
  const place = placeOf(sequence, first);
  if (fold.is_sound) return last - first === 1 ? null : view.words.sound((fold.image ?? 0) + 1, last - first);
  if (last - first === 1) {
    // a name says the tile where there are several
    const tile = /\btile (\d+)/.exec(tokenText(sequence, first))?.[1];
    return place && view.words.patch(place.image + 1, place.row, place.column, tile);
  }
  return view.words.patches(last - first, (fold.image ?? 0) + 1);
}

function placeOf(sequence, token) {
  const { areas } = sequence;
  if (!areas) return null;
  sequence.areaOf ??= new Map(areas.tokens.map((each, place) => [each, place]));
  const place = sequence.areaOf.get(token);
  return place === undefined ? null : { image: areas.image[place], row: areas.row[place], column: areas.column[place] };
}

// the keys that are pointed at, marked in a picture, or marked in the text
export function markedKeys({ spot, region, span, kind }) {
  const tokens = (spot ?? region)?.tokens;
  if (tokens) return tokens;
  const [start, end] = span;
  return Array.from({ length: Math.max(0, Math.min(end, kind.keys) - start) }, (_, place) => start + place);
}

export function markedName(view) {
  const { spot, region, span, kind, words } = view;
  const tokens = (spot ?? region)?.tokens;
  if (!tokens) return view.spanName(kind.looked, span);
  if (tokens.length === 1) return view.spanName(kind.looked, [tokens[0], tokens[0] + 1]);
  return words.patches(tokens.length, (spot ?? region).image + 1);
}

const MOST_IMAGES = 4;
// shares of pictures and of positions that are neither text nor patch
export function pictureShares(view, vector) {
  const { kind, words, join } = view;
  const { areas, sorts = {} } = kind.looked;
  const sum = (tokens) => tokens.reduce((total, token) => (token < kind.keys ? join(total, vector[token]) : total), 0);
  const images = kind.canvases.map((canvas) => ({ share: canvas.share(vector, join), label: words.imageName(canvas.image + 1) }));
  const drawn = images.reduce((total, { share }) => total + share, 0);
  const parts = images.length > MOST_IMAGES ? [{ share: drawn, label: words.imagesName(images.length) }] : images;
  const unplaced = (areas ? sum(areas.tokens) - drawn : 0) + sum(sorts[PATCH] ?? []);
  if (unplaced > 0.0005) parts.push({ share: unplaced, label: words.unplaced });
  const others = Object.entries(sorts).filter(([sort]) => sort !== PATCH);
  return [
    ...parts.map((part) => ({ ...part, name: "image" })),
    ...others.map(([sort, tokens]) => ({ name: "sort", share: sum(apart(view, tokens)), label: words.sort(sort, tokens.length) })),
  ];
}

const PATCH = "image patch";
// the first token may be counted by itself
const apart = (view, tokens) => (view.apart ? tokens.filter((token) => token > 0) : tokens);
