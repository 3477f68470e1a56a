// One answer: the text as it comes, then the viewer with what it looked at.

import { element } from "../dom.js";
import { printable } from "../printable.js";
import { Host } from "./host.js";
import { Lost } from "./server.js";

const mebibytes = (size) => Math.ceil(size / 1024 / 1024);

/** The element `root` is on the page; `ask` fills it from a question, `show` from a reading. */
export class Answer {
  constructor(app) {
    this.app = app;
    this.status = element("span", { class: "status", role: "status" });
    this.title = element("bdi", { class: "title" });
    this.actions = element("span", { class: "actions" });
    this.text = element("p", { class: "written", dir: "auto", "aria-live": "polite" });
    this.error = element("p", { class: "error", role: "alert", hidden: true });
    this.note = element("p", { class: "status note", hidden: true });
    this.view = element("div", { class: "view", hidden: true });
    this.root = element(
      "article",
      { class: "answer" },
      element("header", {}, this.title, this.status, this.actions),
      this.error,
      this.note,
      this.text,
      this.view,
    );
    this.running = null;
    this.written = "";
    // what is said, as functions of the page's words
    Object.assign(this, { told: () => "", failure: null, warning: null, ended: null });
  }

  /** Say it in the page's language, which may have changed. */
  speak() {
    const { reading, app } = this;
    const { words } = app;
    this.status.textContent = this.told(words);
    for (const [node, say] of [[this.error, this.failure], [this.note, this.warning]]) {
      node.hidden = say === null;
      node.textContent = say === null ? "" : printable(say(words));
    }
    if (!reading) return;
    const save = (suffix) =>
      element("button", { class: "quiet", onclick: () => this.save(reading, suffix) }, `${words.save} ${suffix}`);
    this.actions.replaceChildren(...app.formats.map(save));
    this.host.set("lang", app.language);
  }

  say(changes) {
    Object.assign(this, changes);
    this.speak();
  }

  /** Ask the server and show all that comes; resolves at the end, however it ends, with what was written. */
  async ask(question) {
    this.running = new AbortController();
    this.root.classList.add("running");
    this.title.textContent = question.model;
    let isWhole = false;
    try {
      for await (const event of this.app.server.stream("ask", question, this.running.signal)) {
        this.hear(event);
        isWhole ||= event.type === "reading" || event.type === "error" || this.isStopping;
      }
      if (!isWhole) throw new Lost();
    } catch (error) {
      if (error.name === "AbortError") this.say({ told: (words) => words.left });
      else this.fail(error);
    } finally {
      this.running = null;
      this.root.classList.remove("running");
    }
    return this.ended ? this.written : "";
  }

  hear(event) {
    if (event.type === "job") {
      this.job = event.job;
      if (event.waiting) this.say({ told: (words) => words.waiting(event.waiting) });
    } else if (event.type === "started") {
      this.say({ told: (words) => words.started });
    } else if (event.type === "text") {
      this.written += event.text;
      this.text.textContent = this.written.split("\n").map(printable).join("\n");
      this.say({ told: (words) => words.writing });
    } else if (event.type === "written") {
      const why = event.finished ? "finished" : this.isStopping ? "stopped" : event.late ? "late" : "cut";
      this.say({ ended: (words) => words[why](event.tokens), told: (words) => words.reading });
    } else if (event.type === "error") {
      this.fail(new Error(event.error));
    } else if (event.type === "reading") {
      this.show(event.reading);
      if (event.entry !== null) this.app.recent.update("state");
      else if (event.warning !== null) this.say({ warning: (words) => words.notWritten(event.warning) });
      // without a history nothing is kept, as was asked for
      else if (this.app.state.history !== null) this.say({ warning: (words) => words.notKept(...this.sizes()) });
    }
  }

  sizes() {
    return [mebibytes(this.reading.size), mebibytes(this.app.state.remembered)];
  }

  /** The first time lets the model end, and what it wrote is read; the second leaves it. */
  stop() {
    if (!this.running) return;
    if (this.isStopping || !this.job) {
      this.running.abort();
      return;
    }
    this.isStopping = true;
    this.app.server.json("stop", { job: this.job }).catch((error) => this.fail(error));
  }

  fail(error) {
    this.say({ told: () => "", failure: (words) => (error instanceof Lost ? words.lost : error.message) });
  }

  show(reading) {
    this.reading = reading;
    this.title.textContent = printable(reading.model);
    // the viewer shows it too
    this.text.hidden = true;
    this.view.hidden = false;
    this.host = new Host(this.app.server, reading, { lang: this.app.language });
    this.host.on("warning", (why) => this.say({ warning: (words) => words.notWritten(why) }));
    this.closeView = this.app.render({ model: this.host, el: this.view });
    this.say({ told: this.ended ?? (() => printable(reading.title)) });
  }

  /** Take it from the page, and with it what runs for it. */
  close() {
    this.running?.abort();
    this.host?.close();
    this.closeView?.();
    this.root.remove();
  }

  async save(reading, suffix) {
    try {
      const response = await this.app.server.post("save", { reading: reading.id, suffix });
      const address = URL.createObjectURL(await response.blob());
      const name = reading.model.replace(/[^\p{L}\p{N}._-]+/gu, "-");
      element("a", { href: address, download: `${name}${suffix}` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      this.fail(error);
    }
  }
}
