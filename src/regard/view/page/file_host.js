// What a viewer's model is in a file opened from disk: tables lie in the page, compressed, as blocks that never run.

export class FileModel {
  constructor(name, facts) {
    this.name = name;
    this.facts = facts;
    this.listeners = new Map();
  }

  get(name) {
    return this.facts[name];
  }

  set(name, value) {
    this.facts[name] = value;
  }

  save_changes() {}

  on(event, listener) {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  off(event, listener) {
    this.listeners.set(event, (this.listeners.get(event) ?? []).filter((other) => other !== listener));
  }

  async send(message) {
    const { type, kind } = message;
    const places = { mean: `mean.${kind}.${message.measure}`, medium: `medium.${message.number}` };
    const place = places[type] ?? `layer.${kind}.${message.layer}`;
    const block = document.getElementById(`${this.name}.${place}`);
    const answer = block
      ? [message, [new DataView((await unpacked(block, this.facts.embedded)).buffer)]]
      : [{ type: "error", asked: message, message: `${place} is not in this file` }, []];
    for (const listener of this.listeners.get("msg:custom") ?? []) listener(...answer);
  }
}

// the bytes of a block, whose text is not needed again unless it is to be kept
async function unpacked(block, keeps = false) {
  const text = atob(block.textContent);
  if (!keeps) block.textContent = "";
  const packed = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) packed[index] = text.charCodeAt(index);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export async function readDocument(name) {
  const bytes = await unpacked(document.getElementById(name));
  return JSON.parse(new TextDecoder().decode(bytes));
}
