// A matrix as a table: labelled rows and columns, each number to four places, weights shaded. Updated in place.

import { element } from "../dom.js";
import { step } from "../colours.js";

export function figure(value) {
  if (value === -Infinity) return "−∞";
  const text = Math.abs(value) >= 1000 ? value.toFixed(0) : value.toFixed(4);
  // no −0.0000
  return text.replace(/^-(?=0\.?0*$)/, "").replace("-", "−");
}

/** Shade a cell by its weight; white or black on it, whichever is read better: 4.5 : 1 at least (WCAG 2.2, 1.4.3). */
export function shade(cell, weight, palette, largest = 1) {
  const place = step(weight, largest);
  const [red, green, blue] = palette.steps[place].map((value) => (value / 255 <= 0.04045 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  cell.style.background = palette.css[place];
  cell.style.color = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

const texts = new WeakMap();

/** A cell's text, where it is another: to ask the page what it says takes longer than to remember it. */
export function write(cell, text) {
  if (texts.get(cell) === text) return false;
  cell.textContent = text;
  texts.set(cell, text);
  return true;
}

export class Matrix {
  /** `follow(row)` is called where a row's name is clicked. */
  constructor({ shaded = false, edit = null, follow = null } = {}) {
    Object.assign(this, { shaded, edit, follow });
    this.caption = element("caption");
    this.head = element("thead");
    this.body = element("tbody");
    const table = element("table", {}, this.caption, this.head, this.body);
    this.box = element("div", { class: "matrix", tabindex: 0, role: "group" }, table);
  }

  /** `rows` and `columns` are labels; the row `marked` is the one that is followed. */
  show(title, values, { rows, columns, marked = -1, palette, split = 0, isZero = () => false }) {
    const sign = JSON.stringify([rows, columns, split]);
    if (sign !== this.sign) this.build(rows, columns, split);
    this.sign = sign;
    if (this.caption.textContent !== title) {
      this.caption.textContent = title;
      this.box.setAttribute("aria-label", title);
    }
    this.cells.forEach((cells, row) => {
      const isMarked = row === marked;
      if (this.marks[row] !== isMarked) {
        this.marks[row] = isMarked;
        this.names[row].parentNode.classList.toggle("is-marked", isMarked);
        if (this.follow) this.names[row].firstChild.setAttribute("aria-pressed", isMarked);
      }
      cells.forEach((cell, column) => {
        const value = values[row][column];
        if (this.edit) {
          const field = cell.firstChild;
          if (field !== document.activeElement) field.value = value;
          return;
        }
        const isNew = write(cell, figure(value));
        if (!this.shaded || (!isNew && palette === this.palette)) return;
        shade(cell, value, palette);
        cell.classList.toggle("is-zero", isZero(row, column));
      });
    });
    this.palette = palette;
  }

  build(rows, columns, split) {
    const divided = (column) => (split && column && column % split === 0 ? "is-divided" : null);
    const heads = columns.map((name, column) => element("th", { scope: "col", class: divided(column) }, name));
    this.marks = [];
    this.head.replaceChildren(element("tr", {}, element("td"), ...heads));
    this.names = rows.map((name, row) => {
      const label = this.follow ? element("button", { onclick: () => this.follow(row) }, name) : name;
      return element("th", { scope: "row" }, label);
    });
    this.cells = rows.map((name, row) =>
      columns.map((label, column) =>
        element("td", { class: divided(column) }, this.edit ? this.field(row, column, `${name}, ${label}`) : null),
      ),
    );
    this.body.replaceChildren(...rows.map((_, row) => element("tr", {}, this.names[row], ...this.cells[row])));
  }

  field(row, column, label) {
    const field = element("input", { type: "number", step: 0.01, "aria-label": label });
    field.addEventListener("input", () => Number.isFinite(field.valueAsNumber) && this.edit(row, column, field.valueAsNumber));
    return field;
  }
}
