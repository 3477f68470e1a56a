// A part of the text as running lines of tokens, of which only those in sight are in the page.

import { element } from "./dom.js";
import { lines, measuring, pieces } from "./layout.js";

export const LINE = 31;
const FONT_SIZE = 17;
const AROUND = 8;

export class Spine {
  // `on` hears: over(token), click(token, event), select(first, last), scroll()
  constructor({ name, sequence, from, to, label, fold, on }) {
    Object.assign(this, { name, sequence, from, to, on });
    this.pieces = pieces(sequence, from, to, fold);
    this.text = element("div", { class: "spine-text" });
    this.scroller = element(
      "div",
      {
        class: "spine",
        tabindex: "0",
        role: "group",
        "aria-label": label,
        "data-spine": name,
        onscroll: () => this.draw(),
      },
      this.text,
    );
    this.shown = new Map();
    this.starts = new Int32Array([0]);
    this.look = null;
    this.listen();
    // asked for once, since asking makes the browser lay out the page
    this.observer = new ResizeObserver(() => {
      this.height = this.scroller.clientHeight;
      this.arrange();
      this.draw();
    });
    this.observer.observe(this.scroller);
  }

  listen() {
    const token = (event) => {
      const found = event.target.closest?.("[data-t]");
      return found ? Number(found.dataset.t) : null;
    };
    this.text.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "touch") this.on.over(token(event), this);
    });
    this.text.addEventListener("pointerleave", () => this.on.over(null, this));
    const clicked = (event) => {
      const [first, last] = this.selected() ?? [];
      if (first !== undefined && first !== last) this.on.select(first, last, this);
      else if (this.text.contains(event.target) && token(event) !== null) this.on.click(token(event), event, this);
    };
    // what begins in the text may end beside it
    this.text.addEventListener("pointerdown", () => this.text.getRootNode().addEventListener("click", clicked, { once: true }));
  }

  // the first and last token of which the reader has marked a letter with the mouse
  selected() {
    const marked = globalThis.getSelection?.();
    if (!marked || marked.isCollapsed) return null;
    const range = marked.getRangeAt(0);
    const own = document.createRange();
    const tokens = [...this.text.querySelectorAll("[data-t]")].flatMap((node) => {
      own.selectNodeContents(node.firstChild ?? node);
      const begins = range.compareBoundaryPoints(Range.START_TO_END, own) > 0;
      return begins && range.compareBoundaryPoints(Range.END_TO_START, own) < 0 ? node.tokens : [];
    });
    return tokens.length ? [Math.min(...tokens), Math.max(...tokens)] : null;
  }

  arrange(force = false) {
    const width = this.scroller.clientWidth - 44;
    if (width <= 0 || (width === this.width && !force)) return;
    this.width = width;
    const style = getComputedStyle(this.text);
    this.starts = lines(this.pieces, width, measuring(`${FONT_SIZE}px ${style.fontFamily}`));
    this.lineOf = new Int32Array(this.pieces.list.length);
    this.starts.forEach((start, line) => this.lineOf.fill(line, start));
    this.text.style.height = `${this.starts.length * LINE}px`;
    for (const line of this.shown.values()) line.remove();
    this.shown.clear();
    this.draw();
    this.on.arranged?.(this);
  }

  // `all` for print: every line at once
  draw(all = false) {
    const { scrollTop } = this.scroller;
    this.top = scrollTop;
    // one that has not found its height yet is no higher than what can be seen
    const clientHeight = Math.min(this.height ?? LINE, innerHeight);
    const first = all ? 0 : Math.max(0, Math.floor(scrollTop / LINE) - AROUND);
    const last = all ? this.starts.length : Math.min(this.starts.length, Math.ceil((scrollTop + clientHeight) / LINE) + AROUND);
    for (const [line, node] of this.shown) {
      if (line < first || line >= last) {
        node.remove();
        this.shown.delete(line);
      }
    }
    for (let line = first; line < last; line++) {
      if (this.shown.has(line)) continue;
      const node = this.line(line);
      this.shown.set(line, node);
      this.text.append(node);
    }
    this.on.scrolled?.(this);
  }

  line(line) {
    const { list } = this.pieces;
    const end = line + 1 < this.starts.length ? this.starts[line + 1] : list.length;
    const node = element("div", { class: "line", dir: "auto" });
    node.style.top = `${line * LINE}px`;
    for (let index = this.starts[line]; index < end; index++) {
      const { shown, lead, token, last, isNamed, folded } = list[index];
      if (lead && index > this.starts[line]) {
        // marked as its token is, so that a passage is one
        const gap = element("span", { class: "gap" }, " ".repeat(lead));
        gap.tokens = [token, last];
        node.append(gap);
        if (this.look) paint(gap, this.look);
      }
      if (token < 0) {
        node.append(shown.replaceAll("↵", ""));
        continue;
      }
      const span = element("span", { class: "t", "data-t": token }, shown);
      if (folded) span.classList.add("is-fold");
      if (folded) span.title = folded;
      if (isNamed) span.classList.add("is-name");
      else if (/^↵+$/.test(shown)) span.classList.add("is-break");
      span.tokens = [token, last];
      node.append(span);
      if (this.look) paint(span, this.look);
    }
    return node;
  }

  // `look(first, last)` says how the tokens of a piece are shown: { colour, ink, names, marks, sign }
  paint(look) {
    this.look = look;
    for (const node of this.shown.values()) {
      for (const span of node.children) paint(span, look);
    }
  }

  lineOfToken(token) {
    return this.lineOf?.[this.pieces.pieceOf[token - this.from]] ?? 0;
  }

  reveal(token, { smooth = true } = {}) {
    if (token < this.from || token >= this.to) return;
    const top = this.lineOfToken(token) * LINE;
    const { scrollTop, clientHeight } = this.scroller;
    if (top >= scrollTop + LINE && top + 2 * LINE <= scrollTop + clientHeight) return;
    this.scroller.scrollTo({ top: top - clientHeight / 3, behavior: smooth ? "smooth" : "instant" });
  }

  // what the tokens of each line have together
  byLine(weights, join) {
    const found = new Float32Array(this.starts.length);
    for (let token = this.from; token < Math.min(this.to, weights.length); token++) {
      const line = this.lineOfToken(token);
      found[line] = join(found[line], weights[token]);
    }
    return found;
  }
}

function paint(span, look) {
  const { colour, ink, names: all, marks, sign } = look(...span.tokens);
  const isGap = span.className === "gap";
  const names = isGap ? marks : all;
  const told = `${colour}|${ink}|${names}|${sign}`;
  if (span.told === told) return;
  span.told = told;
  span.dataset.look = names;
  if (isGap) return;
  if (sign) span.dataset.sign = sign;
  else delete span.dataset.sign;
  span.style.backgroundColor = colour;
  span.style.color = ink;
}
