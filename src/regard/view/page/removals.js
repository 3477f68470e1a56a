// Does it matter? What the answer is without a part of the text that was marked: asked of the model, and kept.

import { Asking } from "./asking.js";
import { element, keepingFocus } from "./dom.js";
import { figure, passage, times } from "./passage.js";
import { shorten } from "./printable.js";

// what changes less is as likely as before, and what changes less than twofold is told as a share, in nats
const [HARDLY, LITTLE] = [0.05, Math.LN2];

export class Removals {
  // `on.mark(span)` marks a part of the text, `on.home()` takes the keyboard back to it, `on.changed()` draws anew
  constructor(view, on) {
    Object.assign(this, { view, on });
    this.asking = new Asking(view, on.changed);
    this.name = element("q", { class: "marked" });
    this.act = element("span", {});
    this.told = element("span", { class: "told", role: "status" });
    // beside the text what is marked now, and in the panel all that was asked
    this.strip = element("div", { class: "matters", role: "group", hidden: true }, this.name, this.act, this.told);
    this.box = element("section", { class: "panel removals", hidden: true });
  }

  get all() {
    const { kind, reading } = this.view;
    return kind?.sequence === reading.sequences.text ? (reading.settings.removals ?? []) : [];
  }

  // the tokens that are judged without a span: those of the answer, or of a text all that were read after it
  judged([start, end]) {
    const { kind } = this.view;
    const first = Math.max(kind.prompt || kind.rows[0] + 1, end);
    return start < end && end - start < first && first < kind.regions.last ? first : null;
  }

  canAsk(span) {
    const { kind, live, reading } = this.view;
    return live && kind.sequence === reading.sequences.text && kind.writes && this.judged(span) !== null;
  }

  of([start, end]) {
    return this.all.find((each) => each.start === start && each.end === end);
  }

  // what the tokens lose together without a span, those of one part or all; null where none of them is judged
  loss({ first, effects }, part) {
    const [from, to] = part ?? [0, Infinity];
    const own = effects.slice(Math.max(0, from - first), Math.max(0, to - first));
    return own.length ? -own.reduce((sum, effect) => sum + effect, 0) : null;
  }

  // of a removal what is said now: of the chosen token, or of all that was judged
  said(removal) {
    const { words, current, kind } = this.view;
    const loss = current.tokens && this.loss(removal, current.tokens);
    if (loss !== null) return { name: current.name, loss };
    return { name: kind.prompt ? words.theAnswer : words.whatFollows, loss: this.loss(removal) };
  }

  update() {
    const { view } = this;
    const { kind, span, words } = view;
    const found = span && this.of(span);
    this.strip.hidden = !(span && (found || this.canAsk(span)));
    if (!this.strip.hidden) this.mark(found, span);
    this.box.hidden = !this.all.length;
    if (!this.box.hidden) this.list(words, kind);
  }

  mark(found, span) {
    const { view, asking } = this;
    const { words, kind } = view;
    this.strip.setAttribute("aria-label", words.marked);
    const name = shorten(view.spanName(kind.looked, span), 200);
    if (this.name.textContent !== name) this.name.textContent = name;
    const isOwn = String(this.asked) === String(span);
    let told = "";
    if (found) {
      told = matters(words, this.said(found));
    } else if (isOwn) told = asking.told(words.removing);
    if (this.told.textContent !== told) this.told.textContent = told;
    const state = found ? "" : asking.isRunning ? `stop${isOwn}` : "ask";
    const sign = `${state} ${view.language}`;
    if (sign === this.sign) return;
    this.sign = sign;
    const hadFocus = this.act.contains(document.activeElement);
    this.act.replaceChildren();
    if (state === "ask") this.act.append(element("button", { class: "act", onclick: () => this.ask() }, words.effect));
    else if (state) this.act.append(isOwn ? asking.stop() : element("button", { class: "act", disabled: true }, words.effect));
    if (hadFocus) (this.act.querySelector("button") ?? this.on.home()).focus({ preventScroll: true });
  }

  // whether there was anything to ask
  ask() {
    const { span } = this.view;
    if (!span || this.of(span) || this.asking.isRunning || !this.canAsk(span)) return false;
    this.send(span);
    return true;
  }

  async send([start, end]) {
    this.asked = [start, end];
    const answer = await this.asking.ask({ type: "removal", start, end });
    if (answer) this.view.reading.settings.removals = answer.removals;
    this.on.changed();
  }

  list(words, kind) {
    const { view, all } = this;
    const { current, span, language } = view;
    const state = [language, kind.kind, all.length, current.tokens, span, view.folded].join("|");
    if (state === this.listed) return;
    this.listed = state;
    const said = new Map(all.map((removal) => [removal, this.said(removal)]));
    const most = Math.max(...[...said.values()].map(({ loss }) => loss));
    const list = element("ol", { class: "passages is-plain" });
    // in the order of the whole, so that nothing moves while the answer is walked through
    for (const removal of [...all].sort((one, other) => this.loss(other) - this.loss(one))) {
      const own = [removal.start, removal.end];
      const isLit = String(span) === String(own);
      const go = () => this.on.mark(isLit ? null : own);
      list.append(passage({ loss: said.get(removal).loss, most, isLit, text: view.spanName(kind.looked, own), go }));
    }
    const names = new Set([...said.values()].map(({ name }) => name));
    const of = names.size === 1 ? [...names][0] : words.whatFollows;
    keepingFocus(this.box, () =>
      this.box.replaceChildren(
        element("h2", {}, words.effect),
        element("p", { class: "scope" }, words.without(of)),
        list,
      ),
    );
  }
}

function matters({ matters: say }, { name, loss }) {
  if (Math.abs(loss) < HARDLY) return say.same(name);
  if (Math.abs(loss) >= LITTLE) return say[loss > 0 ? "less" : "more"](name, figure(loss), times(Math.abs(loss)));
  return say[loss > 0 ? "aLittleLess" : "aLittleMore"](name, figure(loss), `${Math.round(100 * Math.abs(Math.expm1(-loss)))}\u00a0%`);
}
