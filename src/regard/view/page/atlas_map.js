// All heads of an atlas at a glance: layers to the right, heads down, each in the colour of what it does.

import { STEPS, step } from "./colours.js";
import { element, sized } from "./dom.js";

const SIDE = 26;
const FOOT = 18;
// cells from these sizes on hold a letter
const [WIDE, TALL] = [9, 11];

// of each role a letter, as in the terminal, and a colour; told apart by the letter alone too
export const ROLES = {
  prefix_matching: { letter: "I", light: "#e5702a", dark: "#f09a4b" },
  retrieval: { letter: "R", light: "#8b3f96", dark: "#c58bd0" },
  duplicate_token: { letter: "d", light: "#d8b036", dark: "#d9b84a" },
  previous_token: { letter: "p", light: "#2f6db5", dark: "#6da6e6" },
  local: { letter: "l", light: "#8fc3c0", dark: "#3f7f80" },
  own_segment: { letter: "g", light: "#b4cf95", dark: "#5f7f45" },
  first_token: { letter: "s", light: "#d9d4ca", dark: "#45413a" },
};
const OTHER = { letter: "?", light: "#a49d92", dark: "#8d877c" };

export const roleOf = (name) => ROLES[name] ?? OTHER;

// white or black, whichever is read more easily on this colour: #rrggbb
export function inkOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 128 ? "#1c1a17" : "#ffffff";
}

export class AtlasMap {
  // `page` says what is chosen and what of each head is shown; `choose(layer, head)` hears places, not numbers
  constructor(page, choose) {
    Object.assign(this, { page, choose });
    this.readout = element("p", { class: "readout", id: "atlas-readout", "aria-live": "polite" });
    this.canvas = element("canvas", { class: "map", tabindex: "0", role: "application", "aria-describedby": "atlas-readout" });
    this.cursor = null;
    this.canvas.addEventListener("pointermove", (event) => this.move(this.at(event)));
    this.canvas.addEventListener("pointerleave", () => this.move(null));
    this.canvas.addEventListener("click", (event) => this.pick(this.at(event)));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  update(width) {
    const { page } = this;
    const { layers, heads } = page.facts;
    const { palette, shown } = page;
    const most = Math.max(...heads);
    this.wide = Math.min(30, (width - SIDE) / layers.length);
    this.tall = Math.max(7, Math.min(20, this.wide * 1.3, 380 / most));
    const context = sized(this.canvas, SIDE + this.wide * layers.length, this.tall * most + FOOT);
    const { fontFamily } = getComputedStyle(this.canvas);
    const gap = this.wide > 6 ? 1 : 0.5;
    const [wide, tall] = [this.wide - gap, this.tall - gap];
    const hasLetters = shown.isRoles && this.wide >= WIDE && this.tall >= TALL;
    context.textAlign = "center";
    context.textBaseline = "middle";
    // in which I and l differ
    context.font = `700 ${Math.min(12, this.wide)}px ui-monospace, Menlo, Consolas, monospace`;
    const box = (layer, head) => [SIDE + layer * this.wide, head * this.tall];
    heads.forEach((count, layer) => {
      for (let head = 0; head < count; head++) {
        const [x, y] = box(layer, head);
        const { colour, letter, alpha } = this.look(layer, head);
        context.globalAlpha = alpha;
        context.fillStyle = colour;
        context.fillRect(x, y, wide, tall);
        if (letter && hasLetters) {
          context.fillStyle = inkOn(colour);
          context.fillText(letter, x + wide / 2, y + tall / 2 + 0.5);
        }
        context.globalAlpha = 1;
      }
    });
    const outline = ([layer, head], width) => {
      const [x, y] = box(layer, head);
      context.strokeStyle = palette.ink;
      context.lineWidth = width;
      context.strokeRect(x - gap / 2, y - gap / 2, this.wide, this.tall);
    };
    if (this.cursor) outline(this.cursor, 1);
    outline(page.place, 2.5);
    context.font = `10.5px ${fontFamily}`;
    context.fillStyle = palette.faint;
    context.textAlign = "right";
    const every = (size, room) => [1, 2, 5, 10, 20].find((each) => each * size >= room) ?? 50;
    const everyHead = every(this.tall, 13);
    for (let head = 0; head < most; head += everyHead) context.fillText(String(head), SIDE - 6, (head + 0.5) * this.tall);
    context.textAlign = "center";
    const everyLayer = every(this.wide, 22);
    layers.forEach((layer, place) => {
      if (place % everyLayer === 0) context.fillText(String(layer), SIDE + (place + 0.5) * this.wide, this.tall * most + 10);
    });
    this.canvas.setAttribute("aria-label", `${page.words.map}: ${shown.name}. ${page.words.mapHint}`);
    this.readout.textContent = this.cursor ? page.told(...this.cursor) : page.words.mapHint;
  }

  look(layer, head) {
    const { palette, shown, facts, lit } = this.page;
    if (shown.isRoles) {
      const named = facts.roles[layer][head];
      const role = named.length ? roleOf(lit && named.includes(lit) ? lit : named[0]) : null;
      const isLit = lit === null || named.includes(lit) || (lit === "" && !named.length);
      const none = palette.theme === "dark" ? "#26241f" : "#f3efe8";
      return { colour: role ? role[palette.theme] : none, letter: role?.letter, alpha: isLit ? 1 : 0.22 };
    }
    const value = shown.values[layer][head];
    if (value === null) return { colour: palette.line, alpha: 0.5 };
    const colours = value < 0 ? palette.less : palette.css;
    const at = Math.max(Math.round(0.04 * STEPS), step(Math.abs(value), shown.largest));
    return { colour: colours[at], alpha: shown.isSure(layer, head) ? 1 : 0.25 };
  }

  at(event) {
    const layer = Math.floor((event.offsetX - SIDE) / this.wide);
    const head = Math.floor(event.offsetY / this.tall);
    return head >= 0 && head < (this.page.facts.heads[layer] ?? 0) ? [layer, head] : null;
  }

  move(cursor) {
    if (String(cursor) === String(this.cursor)) return;
    this.cursor = cursor;
    this.page.drawMap();
  }

  pick(place) {
    if (place) this.choose(...place);
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const { facts, place } = this.page;
    const now = this.cursor ?? place;
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in moves) {
      const [right, down] = moves[event.key];
      const layer = Math.min(facts.heads.length - 1, Math.max(0, now[0] + right));
      this.move([layer, Math.min(facts.heads[layer] - 1, Math.max(0, now[1] + down))]);
    } else if (event.key === "Enter" || event.key === " ") {
      this.pick(now);
    } else if (event.key === "Escape") {
      this.move(null);
    } else return;
    event.preventDefault();
  }
}
