// What one head of an atlas does: its roles, all measures with intervals and chance, its effect, and examples.

import { roleOf, inkOn } from "./atlas_map.js";
import { step, STEPS } from "./colours.js";
import { element, svg } from "./dom.js";
import { printable } from "./printable.js";

export function headPanel(page, layer, head) {
  const { facts, words } = page;
  const box = element("section", { class: "panel head", "aria-labelledby": "atlas-head" });
  box.append(
    element("h2", { id: "atlas-head", "aria-live": "polite" }, words.headName(facts.layers[layer], head)),
    rolesOf(page, layer, head),
  );
  const effect = facts.effects?.mean[layer][head] ?? null;
  if (effect !== null) {
    box.append(element("p", { class: "effect" }, (effect > 0 ? words.more : words.less)(effect, facts.effects.texts)));
  }
  box.append(table(page, layer, head), element("p", { class: "note" }, words.key), examples(page, layer, head));
  return box;
}

export function chip(page, name) {
  const colour = roleOf(name)[page.palette.theme];
  const node = element("span", { class: "chip", "aria-hidden": "true" }, roleOf(name).letter);
  node.style.background = colour;
  node.style.color = inkOn(colour);
  return node;
}

function rolesOf(page, layer, head) {
  const { facts, words } = page;
  const named = facts.roles[layer][head];
  if (!named.length) return element("p", { class: "does" }, words.doesNothing);
  const list = named.map((name) => {
    const does = words.does[name] ?? page.meaning(name);
    return element("li", {}, chip(page, name), element("span", {}, element("b", {}, page.role(name)), ` ${does}`));
  });
  return element("ul", { class: "does" }, ...list);
}

function table(page, layer, head) {
  const { facts, words } = page;
  const hasChange = Boolean(facts.before);
  const columns = [words.measure, "", `${words.mean}, ${words.interval}`, words.quantiles, words.chance, ...(hasChange ? [words.change] : [])];
  const body = element("tbody", {});
  for (const [name, measure] of Object.entries(facts.measures)) {
    const told = (table) => page.value(measure, table[layer][head]);
    const range = (low, high) => page.range(measure, low[layer][head], high[layer][head]);
    const unit = words.units[measure.unit];
    const cells = [
      element("th", { scope: "row", title: page.meaning(name) }, page.label(name), unit ? element("small", {}, unit) : null),
      element("td", { class: "drawn" }, drawn(page, measure, layer, head)),
      element("td", {}, element("b", {}, told(measure.mean)), element("small", {}, range(measure.low, measure.high))),
      element("td", {}, page.quantiles(measure, layer, head)),
      element("td", {}, page.value(measure, measure.chance[layer])),
    ];
    if (hasChange) {
      const [low, high] = [measure.change_low[layer][head], measure.change_high[layer][head]];
      const isSure = low > 0 || high < 0;
      cells.push(
        element(
          "td",
          { class: isSure ? "is-sure" : "is-unsure" },
          element(isSure ? "b" : "span", {}, page.signed(measure, measure.change[layer][head])),
          element("small", {}, page.range(measure, low, high)),
        ),
      );
    }
    body.append(element("tr", {}, ...cells));
  }
  return element(
    "div",
    { class: "measures", tabindex: "0", role: "region", "aria-label": words.allMeasures },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...columns.map((text) => (text ? element("th", { scope: "col" }, text) : element("td", {}))))),
      body,
    ),
  );
}

// the mean with its interval and quantiles on a line, and a tick where chance is
function drawn(page, measure, layer, head) {
  const end = measure.unit === "share" ? 1 : page.largestOf(measure);
  const x = (value) => `${Math.min(100, Math.max(0, (100 * value) / end)).toFixed(2)}%`;
  const width = (low, high) => x(Math.max(0, high - low));
  const [mean, low, high, from, to] = ["mean", "low", "high", "q10", "q90"].map((each) => measure[each][layer][head]);
  const chance = measure.chance[layer];
  const picture = svg("svg", { class: "whisker", "aria-hidden": "true" });
  picture.append(svg("rect", { class: "ground", x: 0, y: 4, width: "100%", height: 10, rx: 2 }));
  if (mean === null) return picture;
  picture.append(
    svg("rect", { class: "spread", x: x(from), y: 8, width: width(from, to), height: 2 }),
    svg("rect", { class: "interval", x: x(low), y: 5.5, width: width(low, high), height: 7, rx: 1.5 }),
  );
  if (chance !== null) picture.append(svg("rect", { class: "chance", x: x(chance), y: 2, width: 1.5, height: 14 }));
  picture.append(svg("circle", { class: "mean", cx: x(mean), cy: 9, r: 3.2 }));
  return picture;
}

function examples(page, layer, head) {
  const { facts, words } = page;
  const box = element("div", { class: "examples" }, element("h3", {}, words.examples), element("p", { class: "note" }, words.examplesHint));
  const groups = (facts.examples[`${facts.layers[layer]}.${head}`] ?? []).filter(({ rows }) => rows.length);
  if (!groups.length) box.append(element("p", { class: "note" }, words.noExamples));
  for (const { measure, rows } of groups) {
    const shown = facts.measures[measure].shown_by || measure;
    const list = rows.map((row) => element("li", {}, ...excerpt(page, row, shown)));
    box.append(element("h4", {}, words.examplesOf(page.label(shown))), element("ol", {}, ...list));
  }
  return box;
}

// a text with its row outlined and its keys shaded; places count letters, which are not JavaScript's units
function excerpt(page, { id, text, row, keys, value }, measure) {
  const { words, palette, facts } = page;
  const letters = [...text];
  // the space before a word is part of its token and is not marked
  const bare = ([start, end]) => {
    while (start < end - 1 && letters[start] === " ") start += 1;
    return [start, end];
  };
  const own = bare(row);
  const spots = keys.map(([start, end, weight]) => ({ span: bare([start, end]), weight }));
  const edges = [...new Set([0, letters.length, ...own, ...spots.flatMap(({ span }) => span)])].sort((one, other) => one - other);
  const quote = element("blockquote", { dir: "auto" });
  for (let at = 0; at + 1 < edges.length; at++) {
    const [start, end] = [edges[at], edges[at + 1]];
    const within = ([from, to]) => from <= start && end <= to;
    const weight = spots.reduce((sum, spot) => sum + (within(spot.span) ? spot.weight : 0), 0);
    const isKey = spots.some(({ span }) => within(span));
    const isRow = within(own);
    const shown = visible(letters.slice(start, end).join(""));
    if (!isKey && !isRow) {
      quote.append(shown);
      continue;
    }
    const told = [isRow ? words.looks : null, isKey ? words.weightOf(page.share(weight)) : null].filter(Boolean).join(", ");
    const node = element(isKey ? "mark" : "span", { class: isRow ? "row" : "key", title: told, "data-weight": isKey ? page.share(weight) : null }, shown);
    if (isKey) {
      const at = step(Math.min(1, weight), 1);
      node.style.background = palette.css[at];
      node.style.color = palette.dark && at < palette.dark ? palette.ink : palette.onStrong;
      if (at < 0.03 * STEPS) node.classList.add("is-faint");
    }
    quote.append(node);
  }
  const names = spots.map(({ span, weight }) => `“${visible(letters.slice(...span).join(""))}” ${page.share(weight)}`).join(", ");
  const line = element(
    "p",
    { class: "from" },
    element("bdi", {}, `“${visible(letters.slice(...own).join(""))}”`),
    ` ${words.looksAt} `,
    element("bdi", {}, names),
    element("span", {}, `${page.label(measure)} ${page.value(facts.measures[measure], value)} · `, element("bdi", {}, printable(id))),
  );
  return [quote, line];
}

function visible(text) {
  return [...text].map((letter) => (letter === "\n" ? "↵" : printable(letter))).join("");
}
