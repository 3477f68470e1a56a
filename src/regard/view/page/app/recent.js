// The readings of earlier times, which the server keeps on this computer.

import { element } from "../dom.js";
import { printable } from "../printable.js";

export class Recent {
  constructor(app, { history, warning }) {
    Object.assign(this, { app, entries: history ?? [], failure: warning });
    this.root = element("section", { class: "recent", hidden: history === null });
  }

  /** Say it in the page's language, which may have changed. */
  speak() {
    const { words, language } = this.app;
    const { entries, failure } = this;
    const when = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
    const all = element("button", { class: "quiet", hidden: !entries.length, onclick: () => this.forget(null) }, words.forgetAll);
    const lines = entries.map(({ entry, made, model, title }) =>
      element(
        "li",
        {},
        element(
          "button",
          { class: "entry", onclick: () => this.app.showReading("recall", { entry }) },
          element("bdi", { class: "title" }, printable(title) || "…"),
          element("span", { class: "status" }, element("bdi", {}, printable(model)), ` · ${when.format(new Date(made))}`),
        ),
        element("button", { class: "quiet", onclick: () => this.forget(entry) }, words.forget),
      ),
    );
    if (!lines.length) lines.push(element("li", { class: "status" }, words.nothingRecent));
    this.root.replaceChildren(
      element("header", {}, element("h2", {}, words.recent), all),
      ...(failure === null ? [] : [element("p", { class: "error", role: "alert" }, printable(failure))]),
      element("ol", {}, ...lines),
    );
  }

  /** Show what the server has after this was asked of it. */
  async update(name, body) {
    try {
      const { history, warning } = await this.app.server.json(name, body);
      Object.assign(this, { entries: history ?? [], failure: warning });
    } catch (error) {
      this.failure = error.message;
    }
    this.speak();
  }

  forget(entry) {
    return this.update("forget", { entry });
  }
}
