// An atlas on one page: a map of all heads by what they do, and of one head all that was measured, with examples.

import { chip, headPanel } from "./atlas_head.js";
import { AtlasMap } from "./atlas_map.js";
import { ATLAS } from "./atlas_words.js";
import { palette, strip } from "./colours.js";
import { themeOf } from "./controls.js";
import { element, keepingFocus, select } from "./dom.js";
import { chosen, format, NAMES, number, WORDS } from "./language.js";
import { printable } from "./printable.js";

// heads in the list of the strongest
const MOST = 10;
const [ROLES, EFFECT, CHANGE] = ["roles", "effect", "change:"];
// in this part of the address a head is named, as in #17.5
const ADDRESS = /^#(-?\d+)\.(\d+)$/;

export function renderAtlas(facts, place) {
  new AtlasPage(facts, place).draw();
}

class AtlasPage {
  constructor(facts, home) {
    Object.assign(this, { facts, home, lit: null, theme: "auto" });
    this.language = chosen(home.dataset.lang);
    this.choice = "prefix_matching" in facts.measures ? "prefix_matching" : Object.keys(facts.measures)[0];
    this.ends = new Map();
    this.root = element("div", { class: "regard-view atlas" });
    this.map = new AtlasMap(this, (layer, head) => this.go(layer, head));
    const parts = { header: "controls", intro: "intro", tools: "tools", legend: "legend", list: "panel list", aside: "", about: "about" };
    for (const [name, kind] of Object.entries(parts)) {
      const tag = { header: "header", aside: "aside", about: "footer", list: "nav" }[name] ?? "div";
      this[name] = element(tag, { class: kind || null });
    }
    this.board = element("section", { class: "panel board" }, this.intro, this.tools, this.map.canvas, this.map.readout, this.legend);
    this.root.append(this.header, element("main", {}, this.board, this.aside, this.list), this.about);
    home.append(this.root);
    this.place = this.asked() ?? this.strongest()[0] ?? [0, 0];
    addEventListener("hashchange", () => this.follow());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.theme === "auto" && this.draw());
    new ResizeObserver(() => this.drawMap()).observe(this.board);
  }

  get words() {
    return { ...WORDS[this.language], ...ATLAS[this.language] };
  }

  // all of the page, in this language and theme
  draw() {
    const { root, facts, words } = this;
    root.dataset.theme = themeOf(this.theme);
    document.documentElement.lang = root.lang = this.language === "zh" ? "zh-Hans" : this.language;
    this.palette = palette(root.dataset.theme);
    keepingFocus(this.header, () => this.drawHeader());
    const size = words.shape(facts.layers.length, Math.max(...facts.heads));
    const kind = facts.kind === "decoder" ? "" : ` · ${words.kind[facts.kind] ?? facts.kind}`;
    const { before } = facts;
    this.intro.replaceChildren(
      element("p", {}, `${words.over(facts)} ${size}${kind}`),
      before ? element("p", {}, words.compared(printable(before.model), before.paired)) : "",
      ...facts.refused.map(({ layer, why }) => element("p", { class: "refused" }, words.notMeasured(layer, printable(why)))),
    );
    const { about } = this;
    const wasOpen = about.querySelector("details")?.open;
    const summary = element("summary", {}, `${words.about} `, element("span", { class: "link" }, words.aboutMore));
    about.replaceChildren(element("details", { open: wasOpen }, summary, ...words.explained.map((text) => element("p", {}, text))));
    this.drawChoice();
    this.drawHead();
    root.dataset.ready = "true";
  }

  drawHeader() {
    const { words, header } = this;
    const change = (name) => (value) => {
      this[name] = value;
      this.draw();
    };
    const themes = ["auto", "light", "dark"].map((name) => [name, words[name]]);
    header.replaceChildren(
      element("h1", {}, words.atlas(printable(this.facts.model))),
      element(
        "div",
        { class: "looks" },
        select(words.language, Object.entries(NAMES), this.language, change("language")),
        select(words.theme, themes, this.theme, change("theme")),
      ),
    );
  }

  // what the map shows, its legend and its list
  drawChoice() {
    this.shown = this.look();
    keepingFocus(this.tools, () => this.drawTools());
    keepingFocus(this.legend, () => (this.shown.isRoles ? this.drawRoles() : this.drawScale()));
    this.drawMap();
    this.drawList();
  }

  drawTools() {
    const { facts, words, shown } = this;
    const list = element("select", { "aria-label": words.show, onchange: () => this.show(list.value) });
    const option = (value, text) => element("option", { value, selected: value === this.choice }, text);
    const names = Object.keys(facts.measures);
    const full = (name) => (facts.measures[name].role && this.role(name) !== this.label(name) ? `${this.label(name)} (${this.role(name)})` : this.label(name));
    list.append(option(ROLES, words.byRole), element("optgroup", { label: words.measures }, ...names.map((name) => option(name, full(name)))));
    if (facts.effects) list.append(option(EFFECT, words.effect));
    if (facts.before) {
      const changes = names.map((name) => option(CHANGE + name, words.changeOf(this.label(name))));
      list.append(element("optgroup", { label: words.changes(printable(facts.before.model)) }, ...changes));
    }
    this.tools.replaceChildren(
      element("label", {}, element("span", {}, words.show), list),
      element("p", { class: "note" }, `${shown.meaning}${shown.source ? " · " : ""}`, shown.source ? element("cite", {}, shown.source) : ""),
    );
  }

  drawRoles() {
    const { facts, words } = this;
    const named = facts.roles.flat();
    const entry = (name, text, count) => {
      const light = () => {
        this.lit = this.lit === name ? null : name;
        this.drawChoice();
      };
      const mark = name ? chip(this, name) : element("span", { class: "chip is-none", "aria-hidden": "true" });
      const button = element("button", { type: "button", "aria-pressed": String(this.lit === name), onclick: light }, mark, `${text} `, element("b", {}, String(count)));
      return element("li", {}, button);
    };
    const roles = Object.keys(facts.measures).filter((name) => facts.measures[name].role);
    const entries = roles.map((name) => entry(name, this.role(name), named.filter((own) => own.includes(name)).length));
    const none = entry("", words.noRole, named.filter((own) => !own.length).length);
    this.legend.replaceChildren(element("ul", {}, ...entries, none), element("p", { class: "note" }, words.lightUp));
  }

  drawScale() {
    const { palette, shown, words } = this;
    const bar = (css, isLeft) => {
      const node = element("span", { class: "ramp" });
      node.style.background = isLeft ? strip({ css }).replace("to right", "to left") : strip({ css });
      return node;
    };
    const end = (value) => element("span", { class: "tick" }, value);
    const parts = shown.isSigned
      ? [end(shown.told(-shown.largest)), bar(palette.less, true), bar(palette.css), end(shown.told(shown.largest))]
      : [end(shown.told(0)), bar(palette.css), end(shown.told(shown.largest))];
    if (shown.chance !== undefined) parts.push(element("span", {}, `· ${words.byChance(shown.told(shown.chance))}`));
    this.legend.replaceChildren(element("div", { class: "scale" }, ...parts));
  }

  drawMap() {
    // hidden or not yet laid out
    if (!this.shown || !this.board.clientWidth) return;
    const { paddingLeft, paddingRight } = getComputedStyle(this.board);
    this.map.update(this.board.clientWidth - Number.parseFloat(paddingLeft) - Number.parseFloat(paddingRight));
  }

  drawList() {
    const { facts, words, shown, list } = this;
    const places = this.strongest();
    const items = places.map(([layer, head]) => {
      const name = `${facts.layers[layer]}.${head}`;
      const isHere = String([layer, head]) === String(this.place);
      const link = element("a", { href: `#${name}`, "aria-current": isHere ? "true" : null, "aria-label": words.headName(facts.layers[layer], head) }, name);
      const value = shown.values[layer][head];
      const share = element("span", { class: "share" });
      share.style.width = `${(100 * Math.abs(value)) / (shown.largest || 1)}%`;
      if (value < 0) share.classList.add("is-less");
      const roles = facts.roles[layer][head].map((role) => this.role(role)).join(this.language === "zh" ? "、" : ", ");
      return element("li", {}, link, element("span", { class: "track" }, share), element("b", {}, shown.told(value)), element("span", { class: "roles" }, roles));
    });
    list.setAttribute("aria-label", words.link);
    const nothing = element("p", { class: "note" }, shown.nothing);
    list.replaceChildren(element("h2", {}, shown.title), items.length ? element("ol", {}, ...items) : nothing);
  }

  drawHead() {
    this.aside.replaceChildren(headPanel(this, ...this.place));
  }

  show(choice) {
    this.choice = choice;
    this.lit = null;
    this.drawChoice();
  }

  // the address names the head, so that it can be linked and the browser goes back
  go(layer, head) {
    location.hash = `#${this.facts.layers[layer]}.${head}`;
  }

  asked() {
    const [, layer, head] = location.hash.match(ADDRESS) ?? [];
    const place = this.facts.layers.indexOf(Number(layer));
    return Number(head) < (this.facts.heads[place] ?? 0) ? [place, Number(head)] : null;
  }

  follow() {
    const place = this.asked();
    if (!place) return;
    this.place = place;
    this.drawHead();
    this.drawMap();
    for (const link of this.list.querySelectorAll("a")) {
      if (link.hash === location.hash) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    this.aside.querySelector("h2").scrollIntoView({ block: "nearest" });
  }

  // what is chosen: a value for each head, how it is told, and which heads come first
  look() {
    const { facts, words, choice, lit } = this;
    const always = () => true;
    if (choice === EFFECT) {
      const values = facts.effects.mean;
      const told = (value) => signed(number(value), value);
      const facets = { name: words.effect, meaning: words.effectMeaning(facts.effects.texts), source: words.effectSource, title: words.helpMost };
      return { ...facets, values, told, largest: largest(values), isSigned: true, isSure: always, order: (value) => value, keeps: (value) => value < 0 };
    }
    if (choice.startsWith(CHANGE)) {
      const name = choice.slice(CHANGE.length);
      const measure = facts.measures[name];
      const [values, low, high] = [measure.change, measure.change_low, measure.change_high];
      const isSure = (layer, head) => low[layer][head] > 0 || high[layer][head] < 0;
      const facets = { name: words.changeOf(this.label(name)), meaning: words.changeMeaning, source: measure.source, title: words.mostChanged(this.label(name)), nothing: words.noneChanged };
      const told = (value) => this.signed(measure, value);
      const interval = (layer, head) => this.range(measure, low[layer][head], high[layer][head]);
      return { ...facets, values, told, interval, largest: largest(values), isSigned: true, isSure, order: (value) => -Math.abs(value), keeps: (_, ...place) => isSure(...place) };
    }
    const isRoles = choice === ROLES;
    const name = isRoles ? lit || Object.keys(facts.measures)[0] : choice;
    const measure = facts.measures[name];
    const told = (value) => this.value(measure, value);
    const known = measure.chance.filter((value) => value !== null);
    const mean = known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : undefined;
    const facets = isRoles
      ? { name: words.byRole, meaning: words.rolesMeaning, title: words.namedBy(this.role(name)), nothing: words.noneNamed }
      : { name: this.label(name), meaning: this.meaning(name), source: measure.source, title: words.strongestOf(this.label(name)), nothing: words.notThere };
    const interval = (layer, head) => this.range(measure, measure.low[layer][head], measure.high[layer][head]);
    const keeps = isRoles ? (_, layer, head) => facts.roles[layer][head].includes(name) : always;
    return { ...facets, values: measure.mean, told, interval, chance: mean, largest: largest(measure.mean), isRoles, isSure: always, order: (value) => -value, keeps };
  }

  strongest() {
    const { values, order, keeps } = (this.shown ??= this.look());
    const found = values.flatMap((row, layer) => row.flatMap((value, head) => (value !== null && keeps(value, layer, head) ? [[layer, head, order(value)]] : [])));
    return found.sort((one, other) => one[2] - other[2]).slice(0, MOST).map(([layer, head]) => [layer, head]);
  }

  told(layer, head) {
    const { facts, words, shown } = this;
    const roles = facts.roles[layer][head].map((name) => this.role(name)).join(this.language === "zh" ? "、" : ", ") || words.noRole;
    const name = words.headName(facts.layers[layer], head);
    if (shown.isRoles) return `${name}: ${roles}`;
    const value = shown.values[layer][head];
    if (value === null) return `${name}: ${words.notThere}`;
    return `${name}: ${shown.told(value)}${shown.interval ? ` (${shown.interval(layer, head)})` : ""} · ${roles}`;
  }

  label(name) {
    const { label, label_zh: chinese } = this.facts.measures[name];
    return this.language === "zh" ? chinese : label;
  }

  role(name) {
    const { role, role_zh: chinese } = this.facts.measures[name];
    return this.language === "zh" ? chinese : role;
  }

  meaning(name) {
    return this.words.meanings[name] ?? this.facts.measures[name].meaning;
  }

  value({ unit }, value) {
    if (value === null || value === undefined) return "–";
    return unit === "share" ? this.share(value) : number(value);
  }

  share(value) {
    return format(value);
  }

  signed(measure, value) {
    return value === null ? "–" : signed(this.value(measure, Math.abs(value)), value);
  }

  // with the unit once
  range(measure, low, high) {
    const told = (value) => (value < 0 ? this.signed(measure, value) : this.value(measure, value));
    return `${told(low).replace(" %", "")} – ${told(high)}`;
  }

  quantiles(measure, layer, head) {
    const told = ["q10", "q50", "q90"].map((each) => measure[each][layer][head]);
    if (told[0] === null) return "–";
    const isShare = measure.unit === "share";
    return told.map((value) => (isShare ? String(Math.round(100 * value)) : value.toFixed(value < 100 ? 1 : 0))).join(" · ") + (isShare ? " %" : "");
  }

  largestOf(measure) {
    if (!this.ends.has(measure)) this.ends.set(measure, largest(measure.q90));
    return this.ends.get(measure);
  }
}

function signed(text, value) {
  return value < 0 ? `−${text.replace("-", "")}` : value > 0 ? `+${text}` : text;
}

function largest(table) {
  let most = 0;
  for (const row of table) for (const value of row) most = Math.max(most, Math.abs(value ?? 0));
  return most;
}
