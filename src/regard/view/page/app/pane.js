// One question: which model, what to do, the text, the settings; of a conversation the messages before it too.

import { element } from "../dom.js";
import { printable } from "../printable.js";
import { Talk } from "./talk.js";

let count = 0;

/** `question()` is what the server is asked; `like` is a pane to begin as. */
export class Pane {
  constructor(words, models, { like, onsubmit, characters }) {
    this.words = words;
    this.models = models;
    this.characters = characters;
    this.name = `pane-${count++}`;
    this.chosen = {};
    this.model = element(
      "select",
      { "aria-label": words.model, onchange: () => this.showModes() },
      ...models.map((model) => element("option", { value: model.name }, printable(model.name))),
    );
    this.modes = element("div", { class: "modes", role: "radiogroup" });
    this.text = element("textarea", {
      rows: 3,
      placeholder: words.placeholder,
      "aria-label": words.placeholder,
      spellcheck: "false",
      dir: "auto",
      onkeydown: (event) => {
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        onsubmit();
      },
    });
    this.talk = new Talk(words);
    this.examples = element("div", { class: "examples" });
    this.settings = element("div", { class: "settings" });
    this.details = element("details", {}, element("summary", {}, words.settings), this.settings);
    this.root = element(
      "section",
      { class: "pane" },
      element("div", { class: "row" }, this.model, this.modes),
      this.text,
      this.examples,
      this.details,
    );
    this.showModes();
    if (like) {
      this.take(like);
      // what is compared is mostly two models
      this.model.selectedIndex = (like.model.selectedIndex + 1) % models.length;
      this.showModes(like.mode);
    }
  }

  /** Become as another pane is. */
  take(pane) {
    this.chosen = { ...pane.chosen };
    this.model.selectedIndex = pane.model.selectedIndex;
    this.text.value = pane.text.value;
    this.talk.take(pane.talk);
    this.details.open = pane.details.open;
    this.showModes(pane.mode);
  }

  get mode() {
    return this.modes.querySelector("input:checked").value;
  }

  get talks() {
    return this.mode === "conversation";
  }

  // what the server knows it as
  get sent() {
    return this.talks ? "chat" : this.mode;
  }

  get offered() {
    return this.models[this.model.selectedIndex].modes;
  }

  showModes(wanted = this.modes.querySelector("input:checked")?.value) {
    const modes = Object.keys(this.offered).flatMap((mode) => (mode === "chat" ? [mode, "conversation"] : [mode]));
    const chosen = modes.includes(wanted) ? wanted : modes[0];
    this.modes.replaceChildren(
      ...modes.map((mode) => {
        const input = element("input", {
          type: "radio",
          name: this.name,
          value: mode,
          checked: mode === chosen,
          onchange: () => this.showMode(),
        });
        return element("label", { title: this.words[`${mode}Hint`] }, input, element("span", {}, this.words[mode]));
      }),
    );
    this.showMode();
  }

  showMode() {
    this.examples.replaceChildren(
      ...this.words.examples[this.sent].map((text) => {
        const take = () => {
          this.text.value = text;
          this.text.focus();
        };
        return element("button", { class: "quiet", onclick: take }, text);
      }),
    );
    if (this.talks) this.text.before(this.talk.root);
    else this.talk.root.remove();
    const settings = this.offered[this.sent];
    this.details.hidden = !settings.length;
    this.settings.replaceChildren(
      ...settings.map((setting) => {
        const input = element("input", {
          type: "number",
          title: setting.text,
          step: setting.is_whole ? 1 : "any",
          min: setting.least,
          max: setting.most,
          placeholder: setting.default ?? this.words.none,
          value: this.chosen[setting.name],
          onchange: () => {
            this.chosen[setting.name] = input.value;
          },
        });
        const label = element("span", {}, this.words[setting.name] ?? setting.name);
        return element("label", { title: setting.name }, label, input);
      }),
    );
  }

  /** What is to be asked, or null, with the reason on screen, where it cannot be. */
  question() {
    const text = this.text.value;
    const size = text.length + (this.talks ? this.talk.size : 0);
    const tooLong = size > 2 * this.characters ? this.words.tooLong(this.characters) : "";
    this.text.setCustomValidity(tooLong);
    const inputs = [this.text, ...this.settings.querySelectorAll("input")];
    const wrong = inputs.find((input) => !input.checkValidity());
    if (wrong) {
      if (wrong !== this.text) this.details.open = true;
      wrong.reportValidity();
      return null;
    }
    if (!text.trim()) {
      this.text.focus();
      return null;
    }
    const settings = {};
    for (const { name } of this.offered[this.sent]) {
      if (this.chosen[name]) settings[name] = Number(this.chosen[name]);
    }
    const given = this.talks ? { messages: this.talk.ask(text) } : { text };
    return { model: this.model.value, mode: this.sent, ...given, settings };
  }

  /** The answer to a question that was asked here: of a conversation it stays, and another may follow. */
  hear({ messages }, answer) {
    if (!messages || !this.talk.hear(messages, answer)) return;
    if (this.text.value === messages.at(-1).content) this.text.value = "";
  }
}
