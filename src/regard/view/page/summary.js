// In words and numbers: how the weight of the current rows is shared out, and what got most of it.

import { element, keepingFocus } from "./dom.js";
import { format } from "./language.js";
import { shorten } from "./printable.js";

const MOST = 8;

export class Summary {
  // `on.mark(span)` marks a part of the text and shows it, `on.row(row)` pins what looked
  constructor(view, on) {
    Object.assign(this, { view, on });
    this.box = element("section", { class: "panel summary", "aria-live": "polite", "aria-atomic": "true" });
  }

  update() {
    keepingFocus(this.box, () => this.build());
  }

  build() {
    const { words, current, usage, kind } = this.view;
    this.box.replaceChildren(
      element("h2", {}, current.title),
      element("p", { class: "scope" }, this.view.scope),
    );
    if (current.note) this.box.append(element("p", { class: "note" }, current.note));
    if (!current.units) return;
    if (this.view.measure === "weights" && current.balance.length > 1) this.box.append(this.balance());
    this.box.append(this.ranked(topOf(current.units, MOST, this.view.aside)));
    if (usage && kind.rows.length > 1) {
      this.box.append(element("h2", {}, words.usedBy(shorten(usage.name, 40))), this.users());
    }
  }

  balance() {
    const { current } = this.view;
    const bar = element("div", { class: "bar", role: "img" });
    const list = element("ul", { class: "balance" });
    for (const { name, share, label } of current.balance) {
      const part = element("i", { class: `part is-${name}` });
      part.style.flexGrow = String(share);
      if (share > 0.002) bar.append(part);
      list.append(element("li", { class: `is-${name}` }, element("b", {}, format(share)), ` ${label}`));
    }
    bar.setAttribute("aria-label", current.balance.map(({ share, label }) => `${label} ${format(share)}`).join(", "));
    return element("div", {}, bar, list);
  }

  ranked(order) {
    const { current, keyUnits } = this.view;
    const { units } = current;
    const { words, measure } = this.view;
    const list = element("ol", { class: current.beside ? "ranked has-two" : "ranked" });
    if (current.beside) {
      list.append(
        element(
          "li",
          { class: "columns", "aria-hidden": "true" },
          element("span", {}),
          element("span", {}, words.strongest),
          element("b", {}, this.view.named(measure)),
          element("small", {}, this.view.named(current.besideName)),
        ),
      );
    }
    for (const unit of order) {
      const span = keyUnits.span(unit);
      const bar = element("i", { class: "share" });
      bar.style.width = `${(100 * units[unit]) / (units[order[0]] || 1)}%`;
      list.append(
        element(
          "li",
          {},
          element("span", { class: "track" }, bar),
          element("button", { class: "name", onclick: () => this.on.mark(span) }, shorten(this.view.keyName(unit), 60)),
          element("b", {}, format(units[unit])),
          current.beside ? element("small", {}, format(current.beside[unit])) : null,
        ),
      );
    }
    return list;
  }

  users() {
    const { usage, matrix } = this.view;
    const list = element("ol", { class: "ranked" });
    const order = topOf(usage.byUnit, MOST);
    for (const row of order) {
      const bar = element("i", { class: "share" });
      bar.style.width = `${(100 * usage.byUnit[row]) / (usage.byUnit[order[0]] || 1)}%`;
      const name = matrix.rows[row].name;
      list.append(
        element(
          "li",
          {},
          element("span", { class: "track" }, bar),
          element("button", { class: "name", onclick: () => this.on.row(row) }, shorten(name, 60)),
          element("b", {}, format(usage.byUnit[row])),
        ),
      );
    }
    return list;
  }
}

export function topOf(values, most, aside) {
  const order = [];
  for (let index = 0; index < values.length; index++) {
    if (!(values[index] > 0) || aside?.[index]) continue;
    if (order.length === most && values[index] <= values[order[most - 1]]) continue;
    let at = order.length;
    while (at > 0 && values[order[at - 1]] < values[index]) at--;
    order.splice(at, 0, index);
    if (order.length > most) order.pop();
  }
  return order;
}
