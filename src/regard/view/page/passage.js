// A passage with what the answer loses without it: a sign, a figure in nats, a bar, and its text, which is a button.

import { element } from "./dom.js";
import { printable, shorten } from "./printable.js";

const LONGEST = 400;

// `most` is the loss that fills the bar; `go` hears of a click
export function passage({ sign, loss, most, isKnown = true, isNamed = false, isLit, text, go }) {
  const bar = element("i", { class: "share" });
  bar.style.width = `${most > 0 ? Math.min(100, Math.max(0, (100 * loss) / most)) : 0}%`;
  return element(
    "li",
    { class: isNamed ? "is-named" : null },
    sign === undefined ? null : element("span", { class: "sign" }, sign),
    element("b", { class: isKnown ? null : "is-estimate" }, `${isKnown ? "" : "≈"}${figure(loss)}`),
    element("span", { class: "track" }, bar),
    element(
      "button",
      { class: "name", "aria-pressed": String(isLit), onclick: go },
      printable(shorten(text.replace(/\s+/g, " ").trim(), LONGEST)),
    ),
  );
}

export const figure = (nats) => nats.toFixed(2).replace(/^-(?=0\.00$)/, "").replace("-", "−");

// exp(nats), rounded
export function times(nats) {
  if (nats < Math.log(9.95)) return Math.exp(nats).toFixed(1);
  if (nats < 14) return Math.round(Math.exp(nats)).toLocaleString("en");
  return `10${String(Math.round(nats / Math.LN10)).replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit])}`;
}
