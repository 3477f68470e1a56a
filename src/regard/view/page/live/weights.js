// Weights of 8 bits in the safetensors format: each 32 numbers of a row are int8 times a scale of theirs.

const SCALES = ".scales";
const GROUP = 32;

/** The tensors by name, matrices as float32, and the metadata. */
export function readWeights(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  const { __metadata__: metadata, ...entries } = header;
  const part = ({ data_offsets: [from, to] }) => bytes.slice(start + from, start + to).buffer;
  const tensors = {};
  for (const [name, entry] of Object.entries(entries)) {
    if (name.endsWith(SCALES)) continue;
    const [rows, columns] = entry.shape;
    if (entry.dtype === "F32") tensors[name] = new Float32Array(part(entry));
    else tensors[name] = { rows, columns, data: rescaled(new Int8Array(part(entry)), new Float32Array(part(entries[name + SCALES])), columns) };
  }
  return { tensors, metadata };
}

function rescaled(rounded, scales, columns) {
  const data = new Float32Array(rounded.length);
  const groups = Math.ceil(columns / GROUP);
  for (let at = 0; at < data.length; at++) {
    data[at] = rounded[at] * scales[Math.floor(at / columns) * groups + Math.floor((at % columns) / GROUP)];
  }
  return data;
}

export function fromBase64(text) {
  const letters = atob(text.trim());
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = letters.charCodeAt(at);
  return bytes;
}

/** The tensors whose names begin with `prefix`, without it: a layer of a model. */
export function under(tensors, prefix) {
  const start = `${prefix}.`;
  return Object.fromEntries(
    Object.entries(tensors)
      .filter(([name]) => name.startsWith(start))
      .map(([name, tensor]) => [name.slice(start.length), tensor]),
  );
}

/** Row `id` of a matrix. */
export const row = ({ data, columns }, id) => data.subarray(id * columns, (id + 1) * columns);
