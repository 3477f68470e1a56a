// The ladder on one page: quality by length of the source, one sentence through three models, and a language model.

import { palette } from "./colours.js";
import { themeOf } from "./controls.js";
import { element, select, svg } from "./dom.js";
import { FileModel } from "./file_host.js";
import { chosen, NAMES, WORDS } from "./language.js";
import { printable } from "./printable.js";

const TALL = 270;
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 138, 14, 44];
// told apart by dash as well as by shade
const DASHES = ["", "7 4", "2 3"];

export function renderLadder(facts, place, render) {
  const { documentElement: html } = document;
  const root = element("div", { class: "regard-view ladder" });
  place.append(root);
  const state = { language: chosen(place.dataset.lang), theme: "auto", open: [] };

  function draw() {
    for (const close of state.open) close();
    state.open = [];
    const words = WORDS[state.language];
    root.dataset.theme = themeOf(state.theme);
    html.lang = root.lang = state.language === "zh" ? "zh-Hans" : state.language;
    const change = (name) => (value) => {
      state[name] = value;
      draw();
    };
    const themes = ["auto", "light", "dark"].map((name) => [name, words[name]]);
    root.replaceChildren(
      element(
        "header",
        { class: "controls" },
        element("h1", {}, words.ladder),
        element(
          "div",
          { class: "looks" },
          select(words.language, Object.entries(NAMES), state.language, change("language")),
          select(words.theme, themes, state.theme, change("theme")),
        ),
      ),
      element(
        "div",
        { class: "column" },
        element("p", { class: "intro" }, words.ladderIntro),
        facts.live && element("p", { class: "intro" }, element("a", { href: facts.live }, words.live)),
        element("h2", {}, words.curve),
        curve(facts.models, words, palette(root.dataset.theme)),
        element("p", { class: "note" }, words.curveNote(facts.models[0].count.toLocaleString(state.language))),
        element("h2", {}, words.oneSentence),
        sentence(facts, words),
      ),
    );
    for (const { name, place: at, translates, header } of facts.readings) {
      const box = element("div", { class: "embedded" });
      const title = translates ? name : words.languageModel;
      root.append(element("div", { class: "column" }, element("h2", {}, title)), box);
      const model = new FileModel(at, { header, lang: state.language, theme: state.theme, embedded: true });
      state.open.push(render({ model, el: box }));
    }
    root.dataset.drawn = "true";
  }
  draw();
}

function sentence({ source, reference, models }, words) {
  const list = element("dl", { class: "sentence" });
  const add = (name, text, isQuiet, note) => {
    list.append(
      element("dt", { class: isQuiet ? "is-quiet" : "" }, name),
      element("dd", {}, ...[text].flat(), note ? element("small", {}, note) : null),
    );
  };
  add(words.source, printable(source), true);
  add(words.reference, printable(reference), true);
  for (const { name, translation, reads } of models) {
    add(name, compared(translation, reference), false, reads ? null : words.noWeights);
  }
  return list;
}

// a translation, marked from the first word that is not the reference's
function compared(translation, reference) {
  const [written, wanted] = [translation.split(" "), reference.split(" ")];
  let same = 0;
  while (same < written.length && written[same] === wanted[same]) same++;
  if (same === written.length && same === wanted.length) return printable(translation);
  const rest = printable(written.slice(same).join(" ")) || "…";
  return [`${printable(written.slice(0, same).join(" "))} `, element("mark", {}, `✗ ${rest}`)];
}

function curve(models, words, colours) {
  // on a telephone the letters keep their size
  const wide = innerWidth < 600 ? 420 : 720;
  const shades = [colours.css[colours.css.length - 1], colours.faint, colours.ink];
  const bins = [...new Set(models.flatMap(({ by_length: parts }) => parts.map(({ from, to }) => `${from}–${to}`)))];
  bins.sort((one, other) => Number.parseInt(one, 10) - Number.parseInt(other, 10));
  const x = (bin) => LEFT + ((wide - LEFT - RIGHT) * (bin + 0.5)) / bins.length;
  const y = (share) => TOP + (TALL - TOP - BOTTOM) * (1 - share);
  const picture = svg("svg", { class: "curve", viewBox: `0 0 ${wide} ${TALL}`, role: "img", "aria-label": words.curve });
  const write = (text, properties) => {
    const node = svg("text", properties);
    node.textContent = text;
    picture.append(node);
  };
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    picture.append(svg("line", { x1: LEFT, x2: wide - RIGHT, y1: y(share), y2: y(share), class: "grid" }));
    write(`${100 * share} %`, { x: LEFT - 8, y: y(share), "text-anchor": "end", class: "axis" });
  }
  bins.forEach((bin, at) => write(bin, { x: x(at), y: TALL - BOTTOM + 18, "text-anchor": "middle", class: "axis" }));
  write(words.words, { x: (LEFT + wide - RIGHT) / 2, y: TALL - 5, "text-anchor": "middle", class: "axis" });
  const ends = [];
  models.forEach(({ name, by_length: parts }, model) => {
    const places = parts.map((part) => [bins.indexOf(`${part.from}–${part.to}`), part]);
    const colour = shades[model % shades.length];
    const up = places.map(([bin, part]) => `${x(bin)},${y(part.exact_high)}`);
    const down = places.map(([bin, part]) => `${x(bin)},${y(part.exact_low)}`).reverse();
    picture.append(svg("polygon", { points: [...up, ...down].join(" "), fill: colour, "fill-opacity": 0.13 }));
    const line = places.map(([bin, part]) => `${x(bin)},${y(part.exact)}`).join(" ");
    const dash = DASHES[model % DASHES.length];
    picture.append(svg("polyline", { points: line, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }));
    for (const [bin, part] of places) {
      const dot = svg("circle", { cx: x(bin), cy: y(part.exact), r: 3, fill: colour });
      const told = svg("title");
      told.textContent = `${name}, ${part.from}–${part.to}: ${(100 * part.exact).toFixed(1)} % (${(100 * part.exact_low).toFixed(1)}–${(100 * part.exact_high).toFixed(1)}), ${part.count}`;
      dot.append(told);
      picture.append(dot);
    }
    const [, last] = places[places.length - 1];
    ends.push({ name, colour, at: y(last.exact), share: last.exact });
  });
  // names at the ends of their lines, none upon another
  ends.sort((one, other) => one.at - other.at);
  ends.forEach((end, place) => {
    if (place) end.at = Math.max(end.at, ends[place - 1].at + 17);
    write(`${end.name}  ${(100 * end.share).toFixed(0)} %`, { x: wide - RIGHT + 2, y: end.at, class: "end", fill: end.colour });
  });
  return picture;
}
