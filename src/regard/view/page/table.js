// The same as plain numbers: a table that a screen reader walks through and anyone can copy.

import { element } from "./dom.js";
import { topOf } from "./summary.js";

const MOST = 100;

export class Numbers {
  constructor(view) {
    this.view = view;
    this.summary = element("summary", {});
    this.body = element("div", { class: "scroll", tabindex: "0" });
    this.box = element("details", { class: "panel numbers", ontoggle: () => this.update() }, this.summary, this.body);
  }

  update() {
    const { words, current, keyUnits, measure } = this.view;
    this.summary.textContent = words.numbers;
    this.body.setAttribute("aria-label", words.numbers);
    this.body.replaceChildren();
    if (!this.box.open || !current.units) return;
    const rows = element("tbody", {});
    for (const unit of topOf(current.units, MOST)) {
      const [first, last] = keyUnits.span(unit);
      rows.append(
        element(
          "tr",
          {},
          element("td", {}, last - first > 1 ? `${first}–${last - 1}` : String(first)),
          element("th", { scope: "row" }, this.view.keyName(unit)),
          element("td", {}, current.units[unit].toPrecision(current.isExact ? 7 : 3)),
          current.beside ? element("td", {}, current.beside[unit].toPrecision(3)) : null,
        ),
      );
    }
    const precision = current.isExact ? words.exactly : words.rounded(this.view.reading.rounding.relative);
    const heading = [words.position, words.token, this.view.named(measure), ...(current.beside ? [this.view.named(current.besideName)] : [])];
    this.body.append(
      element(
        "table",
        {},
        element("caption", {}, `${words.numbersCaption(current.name, this.view.scope)}; ${precision}`),
        element("thead", {}, element("tr", {}, ...heading.map((text) => element("th", { scope: "col" }, text)))),
        rows,
      ),
    );
  }
}
