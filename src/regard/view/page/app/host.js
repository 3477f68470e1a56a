// What the viewer takes for its notebook: anywidget's model, of which it uses get, set, on, off, save_changes and send.

// messages whose answers take a while
const RUNS_THE_MODEL = new Set(["sources", "removal", "why"]);

/** A reading that the server has open. */
export class Host {
  constructor(server, reading, values = {}) {
    this.server = server;
    this.reading = reading;
    this.values = { header: reading.header, live: reading.live, exact: true, stops: true, ...values };
    this.listeners = new Map();
    // what runs the model, by its message, each with what ends it
    this.runs = new Map();
  }

  get(name) {
    return this.values[name];
  }

  set(name, value) {
    this.values[name] = value;
    this.tell(`change:${name}`, value);
  }

  save_changes() {}

  on(name, listener) {
    if (!this.listeners.has(name)) this.listeners.set(name, new Set());
    this.listeners.get(name).add(listener);
  }

  off(name, listener) {
    if (listener) this.listeners.get(name)?.delete(listener);
    else this.listeners.delete(name);
  }

  tell(name, ...facts) {
    for (const listener of this.listeners.get(name) ?? []) listener(...facts);
  }

  send(message) {
    if (message.type === "stop") this.runs.get(JSON.stringify(message.asked))?.abort();
    else if (RUNS_THE_MODEL.has(message.type)) this.run(message);
    else this.answer(message);
  }

  // a job of its own, which tells how far it is
  async run(message) {
    const { server, reading, runs } = this;
    const name = JSON.stringify(message);
    const leaving = new AbortController();
    runs.set(name, leaving);
    const tell = (type, facts) => this.tell("msg:custom", { type, asked: message, ...facts }, []);
    try {
      for await (const event of server.stream("run", { reading: reading.id, message }, leaving.signal)) {
        if (event.type === "error") throw new Error(event.error);
        if (event.type === "done") {
          if (event.warning !== null) this.tell("warning", event.warning);
          this.tell("msg:custom", event.message, []);
          return;
        }
        tell("progress", { waiting: event.waiting, done: event.done });
      }
      throw new Error("the server has ended");
    } catch (error) {
      if (error.name === "AbortError") tell("stopped");
      else tell("error", { message: error.message });
    } finally {
      runs.delete(name);
    }
  }

  close() {
    for (const leaving of this.runs.values()) leaving.abort();
  }

  async answer(message) {
    try {
      const response = await this.server.post("view", { reading: this.reading.id, message });
      this.tell("msg:custom", message, [new DataView(await response.arrayBuffer())]);
    } catch (error) {
      this.tell("msg:custom", { type: "error", asked: message, message: error.message }, []);
    }
  }
}
