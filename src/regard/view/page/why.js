// Why a head looked there: the score of one weight, by what earlier layers gave to the query and to the key.

import { Asking } from "./asking.js";
import { element, keepingFocus } from "./dom.js";
import { format } from "./language.js";
import { figure } from "./passage.js";
import { printable, shorten } from "./printable.js";
import { spanText } from "./units.js";

// pairs and components that are listed
const [PAIRS, PARTS] = [6, 5];

export class Why {
  // `on.choose({ heads, pinned })` chooses a head and what looked, `on.changed()` draws anew
  constructor(view, on) {
    Object.assign(this, { view, on, known: new Map() });
    this.asking = new Asking(view, on.changed);
    this.box = element("section", { class: "panel why", hidden: true, "aria-live": "polite" });
  }

  // the weight that can be asked about: of one head and one row, on the marked token or that with the largest weight
  get place() {
    const { kind, live, reading, heads, pinned, current } = this.view;
    if (!live || pinned === null || kind.kind !== "decoder" || kind.sequence !== reading.sequences.text) return null;
    if ((heads?.size ?? kind.heads) !== 1 || current.rows.length !== 1 || !current.vector) return null;
    const [layer, head] = kind.place(heads ? [...heads][0] : 0);
    const row = kind.rows[current.rows[0]];
    const key = this.key(row);
    return key === null ? null : { layer: kind.layers[layer].layer, head, row, key };
  }

  key(row) {
    const { span, current, aside, keyUnits } = this.view;
    if (span) return span[1] - span[0] === 1 && span[0] <= row ? span[0] : null;
    const order = Array.from({ length: row + 1 }, (_, key) => key).sort((one, other) => current.vector[other] - current.vector[one]);
    return order.find((key) => !aside[keyUnits.of[key]]) ?? order[0];
  }

  update() {
    const { place, asking, view } = this;
    this.box.hidden = place === null;
    if (place === null) return;
    const name = JSON.stringify(place);
    const found = this.known.get(name);
    const told = asking.told(view.words.explaining);
    const sign = [view.language, name, Boolean(found), told, asking.isRunning].join("|");
    if (sign === this.sign) return;
    this.sign = sign;
    keepingFocus(this.box, () => (found ? this.show(found) : this.offer(place, name, told)));
  }

  head({ layer, head, row, key }) {
    const { words, kind } = this.view;
    const named = (token) => (token < kind.size ? shorten(spanText(kind.sequence, [token, token + 1]), 30) : "");
    const [looks, looked, written] = [named(row), named(key), kind.writes ? named(row + 1) : ""];
    this.box.replaceChildren(
      element("h2", {}, words.why),
      element("p", { class: "scope" }, words.whyScope(looks, written, looked, words.oneHead(layer, head))),
    );
    return [looks, looked];
  }

  offer(place, name, told) {
    const { words } = this.view;
    const [, looked] = this.head(place);
    const isOwn = this.asked === name;
    const row = element("div", { class: "ask-row" });
    if (this.asking.isRunning && isOwn) row.append(this.asking.stop());
    else {
      const ask = () => this.ask(place, name);
      row.append(element("button", { class: "act", disabled: this.asking.isRunning, onclick: ask }, words.whyAsk(looked)));
    }
    row.append(element("span", { class: "note", role: "status" }, (isOwn && told) || words.whyHint));
    this.box.append(row);
  }

  async ask(place, name) {
    this.asked = name;
    const answer = await this.asking.ask({ type: "why", ...place });
    if (answer) this.known.set(name, answer.why);
    this.on.changed();
  }

  show(found) {
    const { words } = this.view;
    const [looks, looked] = this.head(found);
    const { by_query: inQuery, by_key: inKey, strongest, added, softcap } = found;
    const most = Math.abs(strongest[0].score);
    const told = [words.whyScore(figure(found.score), format(found.weight))];
    if (Math.abs(added) > 0.005) told.push(words.whyAdded(figure(added)));
    if (softcap !== null) told.push(words.whyCap(softcap));
    this.box.append(
      element("p", { class: "told" }, told.join(" ")),
      element("h3", {}, words.whyPairs),
      this.list(strongest.slice(0, PAIRS), most, ({ query, key }) => [this.name(query, found.row), " × ", this.name(key, found.key)]),
      this.side(words.inQuery(looks), inQuery, found.row),
      this.side(words.inKey(looked), inKey, found.key),
      element("p", { class: "note" }, words.whyNote),
    );
  }

  side(title, parts, position) {
    const order = [...parts].sort((one, other) => Math.abs(other.score) - Math.abs(one.score)).slice(0, PARTS);
    const list = this.list(order, Math.abs(order[0].score), (each) => [this.name(each, position)]);
    return element("div", {}, element("h3", {}, title), list);
  }

  list(order, most, names) {
    const list = element("ol", { class: "met" });
    for (const each of order) {
      const bar = element("i", { class: each.score < 0 ? "share against" : "share" });
      bar.style.width = `${(100 * Math.abs(each.score)) / (most || 1)}%`;
      const name = element("span", {}, ...names(each));
      list.append(element("li", {}, element("b", {}, signed(each.score)), element("span", { class: "track" }, bar), name));
    }
    return list;
  }

  // a component; a head, where it can be shown, as a button to where it looked from this position
  name(part, position) {
    const { kind, words } = this.view;
    const name = printable(words.component(part));
    const index = kind.layers.findIndex(({ layer }) => layer === part.layer);
    const pinned = position + (kind.writes ? 1 : 0);
    if (part.head === null || index < 0 || !kind.rowOf.has(pinned)) return name;
    const go = () => this.on.choose({ heads: new Set([kind.first[index] + part.head]), pinned });
    return element("button", { onclick: go }, name);
  }
}

const signed = (score) => (score > 0 ? `+${figure(score)}` : figure(score));
