// What these numbers say, what they do not, what proves them, and what was refused.

import { element } from "./dom.js";

export class About {
  constructor(view) {
    this.view = view;
    this.box = element("footer", { class: "about" });
  }

  update() {
    const { words, reading, exact, language } = this.view;
    if (this.shown === language) return;
    this.shown = language;
    const rows = reading.checks.reduce((sum, check) => sum + check.rows, 0);
    const error = Math.max(0, ...reading.checks.map((check) => Math.max(check.row_sum_error, check.context_error)));
    const reasons = new Map();
    for (const { kind, layer, why } of reading.refused) {
      const name = `${kind}|${why}`;
      reasons.set(name, { kind, why, layers: [...(reasons.get(name)?.layers ?? []), layer] });
    }
    this.box.replaceChildren(
      ...[...reasons.values()].map(({ kind, why, layers }) =>
        element("p", { class: "refused" }, words.refused(kind, layers.join(", "), why)),
      ),
      element(
        "details",
        {},
        element("summary", {}, `${words.about} `, element("span", { class: "link" }, words.aboutMore)),
        element("p", {}, words.explained),
        element("p", {}, rows ? words.checked(rows.toLocaleString(language), error.toExponential(0)) : words.unchecked),
        element("p", {}, words.precision(reading.rounding.relative, exact)),
      ),
    );
  }
}
