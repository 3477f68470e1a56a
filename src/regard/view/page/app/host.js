// What the viewer takes for its notebook: anywidget's model, of which it uses get, set, on, off, save_changes and send.

/** A reading that the server has open. */
export class Host {
  constructor(server, reading, values = {}) {
    this.server = server;
    this.reading = reading;
    this.values = { header: reading.header, live: reading.live, exact: true, ...values };
    this.listeners = new Map();
    // effects run the model, which does one thing at a time
    this.last = Promise.resolve();
    this.leaving = new AbortController();
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
    const answer = () => this.answer(message);
    if (message.type === "sources") this.seek(message);
    else if (message.type === "effect") this.last = this.last.then(answer);
    else answer();
  }

  // a job of its own, which tells how it fares
  async seek(message) {
    const { server, reading, leaving } = this;
    try {
      for await (const event of server.stream("sources", { reading: reading.id }, leaving.signal)) {
        if (event.type === "error") throw new Error(event.error);
        const isDone = event.type === "sources";
        this.tell("msg:custom", isDone ? event : { type: "progress", asked: message, waiting: event.waiting }, []);
        if (isDone) return;
      }
      throw new Error("the server has ended");
    } catch (error) {
      this.tell("msg:custom", { type: "error", asked: message, message: error.message }, []);
    }
  }

  close() {
    this.leaving.abort();
  }

  async answer(message) {
    try {
      const response = await this.server.post("view", { reading: this.reading.id, message });
      if (message.type === "effect") this.tell("msg:custom", await response.json(), []);
      else this.tell("msg:custom", message, [new DataView(await response.arrayBuffer())]);
    } catch (error) {
      this.tell("msg:custom", { type: "error", asked: message, message: error.message }, []);
    }
  }
}
