// A question that runs the model: how far it is, how it is stopped, and why there was no answer.

import { element } from "./dom.js";
import { printable } from "./printable.js";

export class Asking {
  // `changed()` hears when there is something else to show
  constructor(view, changed) {
    Object.assign(this, { view, changed, message: null, state: {}, failure: null });
  }

  get isRunning() {
    return this.message !== null;
  }

  // what came, or null where it was stopped or failed
  async ask(message) {
    const { reading } = this.view;
    const tell = (changes) => {
      Object.assign(this, changes);
      this.changed();
    };
    tell({ message, state: {}, failure: null });
    let found = null;
    try {
      found = await reading.ask(message, (state) => tell({ state }));
    } catch (error) {
      this.failure = error.message;
    }
    tell({ message: null });
    return found && found.message;
  }

  // `steps(done)` says how far it is
  told(steps) {
    const { waiting, done = 0 } = this.state;
    const { words } = this.view;
    if (!this.isRunning) return this.failure === null ? "" : words.failed(printable(this.failure));
    return waiting ? words.waiting(waiting) : steps(done);
  }

  // a notebook's kernel is interrupted by its own means
  stop() {
    const { words, stops, reading } = this.view;
    if (!stops) return element("span", { class: "note" }, words.interrupts);
    return element("button", { class: "act", onclick: () => reading.stop(this.message) }, words.stop);
  }
}
