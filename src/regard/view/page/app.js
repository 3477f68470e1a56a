// The live page: ask a model, watch it write, see what it looked at.

import { Answer } from "./app/answer.js";
import { element } from "./dom.js";
import { Pane } from "./app/pane.js";
import { Recent } from "./app/recent.js";
import { Lost, Server, takeToken } from "./app/server.js";
import { LANGUAGES } from "./app/words.js";
import viewer from "./viewer.bundle.js";

const LANGUAGE = "regard-language";
const MEBIBYTE = 1024 * 1024;

class App {
  /** `before` is the page in another language, whose questions and readings stay. */
  constructor(server, state, language, before) {
    Object.assign(this, { server, state, language, words: LANGUAGES[language], formats: state.formats });
    this.render = viewer.render;
    document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
    this.panes = [];
    this.shown = [];
    this.answers = element("div", { class: "answers" });
    this.recent = new Recent(this, state.history);
    this.root = element("div", { class: "page", onkeydown: (event) => event.key === "Escape" && this.stop() }, this.top(), this.composer(), this.answers, this.recent.root);
    const shown = before ? before.shown.flatMap(({ reading }) => reading ?? []) : state.readings;
    for (const reading of shown) this.addAnswer().show(reading);
    for (const [place, pane] of (before?.panes ?? []).entries()) {
      this.setPanes(place + 1);
      this.panes[place].take(pane);
    }
  }

  top() {
    const { words } = this;
    const file = element("input", {
      type: "file",
      accept: ".safetensors",
      hidden: true,
      onchange: () => {
        if (file.files.length) this.openFile(file.files[0]);
        file.value = "";
      },
    });
    const other = this.language === "en" ? "zh" : "en";
    return element(
      "header",
      { class: "top" },
      element("h1", {}, "Regard"),
      element("p", { class: "status" }, words.tagline),
      element("button", { class: "quiet", onclick: () => file.click() }, words.open),
      element("button", { class: "quiet", lang: other, onclick: () => this.speak(other) }, words.language),
      file,
    );
  }

  composer() {
    const { words } = this;
    if (!this.state.models.length) return element("p", { class: "notice" }, words.noModels);
    this.sheet = element("div", { class: "panes" });
    this.button = element("button", { class: "primary", onclick: () => this.ask() }, words.ask);
    this.halt = element("button", { hidden: true, onclick: () => this.stop() }, words.stop);
    this.twice = element("button", { class: "quiet", onclick: () => this.compare() });
    this.setPanes(1);
    return element(
      "section",
      { class: "composer" },
      this.sheet,
      element("div", { class: "row" }, this.button, this.halt, this.twice),
    );
  }

  setPanes(count) {
    while (this.panes.length > count) this.panes.pop();
    while (this.panes.length < count) {
      const options = { like: this.panes.at(-1), onsubmit: () => this.ask(), characters: this.state.characters };
      this.panes.push(new Pane(this.words, this.state.models, options));
    }
    this.sheet.replaceChildren(...this.panes.map((pane) => pane.root));
    this.twice.textContent = count > 1 ? this.words.alone : this.words.compare;
  }

  compare() {
    this.setPanes(this.panes.length > 1 ? 1 : 2);
    this.panes.at(-1).text.focus();
  }

  async ask() {
    const panes = [...this.panes];
    const questions = panes.map((pane) => pane.question());
    if (this.asked?.some((answer) => answer.running) || questions.includes(null)) return;
    this.clear();
    this.asked = questions.map(() => this.addAnswer());
    this.button.disabled = true;
    this.halt.hidden = false;
    const written = await Promise.all(this.asked.map((answer, place) => answer.ask(questions[place])));
    panes.forEach((pane, place) => pane.hear(questions[place], written[place]));
    this.button.disabled = false;
    this.halt.hidden = true;
  }

  stop() {
    for (const answer of this.asked ?? []) answer.stop();
  }

  clear() {
    for (const answer of this.shown.splice(0)) answer.close();
  }

  addAnswer() {
    const answer = new Answer(this);
    this.shown.push(answer);
    this.answers.append(answer.root);
    return answer;
  }

  /** Show what the server has: a file that is sent to it, or an entry of its history. */
  async showReading(name, body) {
    if (!this.asked?.some((answer) => answer.running)) this.clear();
    const answer = this.addAnswer();
    answer.root.scrollIntoView({ block: "nearest" });
    try {
      answer.show(await this.server.json(name, body));
    } catch (error) {
      answer.fail(error.message);
    }
  }

  openFile(file) {
    if (file.size > this.state.file) this.addAnswer().fail(this.words.tooLarge(this.state.file / MEBIBYTE));
    else this.showReading("open", file);
  }

  speak(language) {
    localStorage.setItem(LANGUAGE, language);
    start(this.server, language, this);
  }
}

function preferred() {
  const known = localStorage.getItem(LANGUAGE);
  if (known in LANGUAGES) return known;
  return navigator.language.startsWith("zh") ? "zh" : "en";
}

async function start(server, language, before) {
  const words = LANGUAGES[language ?? preferred()];
  try {
    if (!server.token) throw new Error(words.noToken);
    const state = await server.json("state");
    const app = new App(server, state, language ?? state.language ?? preferred(), before);
    before?.clear();
    document.body.replaceChildren(app.root);
  } catch (error) {
    const message = error instanceof Lost ? words.lost : error.message;
    document.body.replaceChildren(
      element("div", { class: "page" }, element("h1", {}, "Regard"), element("p", { class: "notice", role: "alert" }, message)),
    );
  }
}

start(new Server(takeToken()));
