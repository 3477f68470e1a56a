// The live page: ask a model, watch it write, see what it looked at.

import { Answer } from "./app/answer.js";
import { element, keepingFocus } from "./dom.js";
import { Pane } from "./app/pane.js";
import { Recent } from "./app/recent.js";
import { Lost, Server, takeToken } from "./app/server.js";
import { LANGUAGES } from "./app/words.js";
import viewer from "./viewer.bundle.js";

const LANGUAGE = "regard-language";
const MEBIBYTE = 1024 * 1024;

class App {
  constructor(server, state, language) {
    Object.assign(this, { server, state, formats: state.formats, panes: [], shown: [], isAsking: false });
    this.render = viewer.render;
    this.head = element("header", { class: "top" });
    this.form = element("section", { class: state.models.length ? "composer" : "notice" });
    this.answers = element("div", { class: "answers" });
    this.recent = new Recent(this, state);
    const onkeydown = (event) => event.key === "Escape" && this.stop();
    this.root = element("div", { class: "page", onkeydown }, this.head, this.form, this.answers, this.recent.root);
    this.speak(language);
    for (const reading of state.readings) this.addAnswer().show(reading);
  }

  /** Say everything in another language, at once: what is asked, written and open stays as it is. */
  speak(language) {
    Object.assign(this, { language, words: LANGUAGES[language] });
    document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
    keepingFocus(this.root, () => {
      this.head.replaceChildren(...this.top());
      this.form.replaceChildren(...this.composer());
      this.recent.speak();
      for (const answer of this.shown) answer.speak();
    });
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
    const turn = () => {
      localStorage.setItem(LANGUAGE, other);
      this.speak(other);
    };
    return [
      element("h1", {}, "Regard"),
      element("p", { class: "status" }, words.tagline),
      element("button", { class: "quiet", onclick: () => file.click() }, words.open),
      element("button", { class: "quiet", lang: other, onclick: turn }, words.language),
      file,
    ];
  }

  composer() {
    const { words, panes } = this;
    if (!this.state.models.length) return [words.noModels];
    this.sheet = element("div", { class: "panes" });
    this.button = element("button", { class: "primary", onclick: () => this.ask() }, words.ask);
    this.halt = element("button", { onclick: () => this.stop() }, words.stop);
    this.twice = element("button", { class: "quiet", onclick: () => this.compare() });
    this.setAsking(this.isAsking);
    this.panes = [];
    this.setPanes(panes.length || 1);
    panes.forEach((pane, place) => this.panes[place].take(pane));
    return [this.sheet, element("div", { class: "row" }, this.button, this.halt, this.twice)];
  }

  setAsking(isAsking) {
    this.isAsking = this.button.disabled = isAsking;
    this.halt.hidden = !isAsking;
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
    if (this.isAsking) return;
    const questions = this.panes.map((pane) => pane.question());
    if (questions.includes(null)) return;
    this.clear();
    this.asked = questions.map(() => this.addAnswer());
    this.setAsking(true);
    const written = await Promise.all(this.asked.map((answer, place) => answer.ask(questions[place])));
    // they may be others by now
    questions.forEach((question, place) => this.panes[place]?.hear(question, written[place]));
    this.setAsking(false);
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
    if (!this.isAsking) this.clear();
    const answer = this.addAnswer();
    answer.root.scrollIntoView({ block: "nearest" });
    try {
      answer.show(await this.server.json(name, body));
    } catch (error) {
      answer.fail(error);
    }
  }

  openFile(file) {
    if (file.size <= this.state.file) this.showReading("open", file);
    else this.addAnswer().say({ failure: (words) => words.tooLarge(this.state.file / MEBIBYTE) });
  }
}

function preferred() {
  const known = localStorage.getItem(LANGUAGE);
  if (known in LANGUAGES) return known;
  return navigator.language.startsWith("zh") ? "zh" : "en";
}

async function start(server) {
  const words = LANGUAGES[preferred()];
  try {
    if (!server.token) throw new Error(words.noToken);
    const state = await server.json("state");
    document.body.replaceChildren(new App(server, state, state.language ?? preferred()).root);
  } catch (error) {
    const message = error instanceof Lost ? words.lost : error.message;
    document.body.replaceChildren(
      element("div", { class: "page" }, element("h1", {}, "Regard"), element("p", { class: "notice", role: "alert" }, message)),
    );
  }
}

start(new Server(takeToken()));
