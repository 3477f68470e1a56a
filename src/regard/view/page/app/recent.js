// The readings of earlier times, which the server keeps on this computer.

import { element } from "../dom.js";
import { printable } from "../printable.js";

export class Recent {
  constructor(app, entries) {
    this.app = app;
    this.list = element("ol", {});
    this.all = element("button", { class: "quiet", onclick: () => this.forget(null) }, app.words.forgetAll);
    this.root = element(
      "section",
      { class: "recent", hidden: entries === null },
      element("header", {}, element("h2", {}, app.words.recent), this.all),
      this.list,
    );
    this.show(entries ?? []);
  }

  show(entries) {
    const { words, language } = this.app;
    const when = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
    this.all.hidden = !entries.length;
    this.list.replaceChildren(
      ...entries.map(({ entry, made, model, title }) =>
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
      ),
    );
    if (!entries.length) this.list.append(element("li", { class: "status" }, words.nothingRecent));
  }

  async refresh() {
    this.show((await this.app.server.json("state")).history ?? []);
  }

  async forget(entry) {
    this.show((await this.app.server.json("forget", { entry })).history ?? []);
  }
}
