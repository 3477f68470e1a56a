// A conversation: a system message, and the turns that go before the next question.

import { element } from "../dom.js";
import { printable } from "../printable.js";

export class Talk {
  constructor(words) {
    this.words = words;
    this.turns = [];
    this.asked = null;
    this.system = element("textarea", {
      class: "system",
      rows: 1,
      placeholder: words.system,
      "aria-label": words.system,
      spellcheck: "false",
      dir: "auto",
    });
    this.list = element("ol", { class: "turns", tabindex: "0", "aria-label": words.turns });
    this.fresh = element("button", { class: "quiet", onclick: () => this.show([]) }, words.fresh);
    this.root = element("div", { class: "talk" }, this.system, this.list, this.fresh);
    this.show([]);
  }

  take(talk) {
    this.system.value = talk.system.value;
    this.show(talk.turns);
    this.asked = talk.asked;
  }

  get size() {
    return this.turns.reduce((sum, { content }) => sum + content.length, this.system.value.length);
  }

  /** The messages of a question. */
  ask(content) {
    const system = this.system.value.trim() ? [{ role: "system", content: this.system.value }] : [];
    this.asked = [...system, ...this.turns, { role: "user", content }];
    return this.asked;
  }

  /** Whether the answer to these messages is taken in: not if it is empty, or the conversation another by now. */
  hear(messages, content) {
    if (messages !== this.asked || !content.trim()) return false;
    const said = messages.filter(({ role }) => role !== "system");
    this.show([...said, { role: "assistant", content }]);
    return true;
  }

  show(turns) {
    this.turns = turns;
    this.asked = null;
    this.fresh.hidden = !turns.length;
    this.list.replaceChildren(
      ...turns.map(({ role, content }) =>
        element(
          "li",
          { class: `is-${role}` },
          element("span", { class: "role" }, this.words.roles[role]),
          element("p", { dir: "auto" }, content.split("\n").map(printable).join("\n")),
        ),
      ),
    );
    this.list.scrollTop = this.list.scrollHeight;
  }
}
