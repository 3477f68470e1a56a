// A question after a section: a number is typed, checked and explained; a hint is there for who asks.

import { element } from "../dom.js";

// relative, for answers that are rounded
const TOLERANCE = 0.006;

/** `answer()` is the right number now; `facts()` are what the question names. */
export class Exercise {
  constructor(app, name, answer, facts = () => []) {
    Object.assign(this, { app, name, answer, facts });
    this.root = element("aside", { class: "exercise", "aria-labelledby": `exercise-${name}` });
  }

  build() {
    const words = this.app.words.exercises;
    const own = words[this.name];
    const id = `answer-${this.name}`;
    const title = element("h3", { id: `exercise-${this.name}` }, `${words.title}: ${own.title}`);
    this.question = element("label", { for: id });
    const field = element("input", { id, inputmode: "decimal", autocomplete: "off", size: 10 });
    const told = element("p", { class: "feedback", role: "status" });
    const hint = element("p", { class: "hint", hidden: true }, own.hint);
    const check = (event) => {
      event.preventDefault();
      const given = Number(field.value.normalize("NFKC").replace(/[\s ](?=\d{3})/g, "").replace("−", "-").replace(",", "."));
      if (!field.value.trim() || Number.isNaN(given)) told.textContent = words.notNumber;
      else {
        const [wanted, isRight] = [this.answer(), isClose(given, this.answer())];
        told.textContent = isRight ? `✓ ${own.right(wanted)}` : `✗ ${words.wrong}`;
        told.classList.toggle("is-right", isRight);
      }
    };
    const open = element("button", { type: "button", "aria-expanded": "false", onclick: () => {
      hint.hidden = !hint.hidden;
      open.setAttribute("aria-expanded", String(!hint.hidden));
    } }, words.hint);
    this.root.replaceChildren(title, element("form", { onsubmit: check }, this.question, field, element("button", { type: "submit" }, words.check), open), hint, told);
    this.show();
  }

  show() {
    if (this.question && this.app.asked?.translations) this.question.textContent = this.app.words.exercises[this.name].question(...this.facts());
  }
}

export const isClose = (given, wanted) => Math.abs(given - wanted) <= TOLERANCE * Math.max(1, Math.abs(wanted)) * (Number.isInteger(wanted) ? 0.01 : 1);
