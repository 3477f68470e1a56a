// Text as token ids and back: byte-level BPE for the translators, single characters for the GPT.
//
// Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with subword units"; bytes and the pattern
// as in Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.2.

export const [PAD, BOS, EOS, UNKNOWN] = [0, 1, 2, 3];
const SPECIAL = 4;
const PARTS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

// which letter stands for each byte: itself where it can be seen, else one past 255
const LETTERS = [];
{
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const isSeen = (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || byte > 173;
    LETTERS.push(String.fromCharCode(isSeen ? byte : next++));
  }
}
const BYTES = new Map(LETTERS.map((letter, byte) => [letter, byte]));

export class Tokenizer {
  constructor({ kind, tokens, merges }) {
    Object.assign(this, { kind, tokens });
    this.ids = new Map(tokens.map((token, id) => [token, id]));
    this.ranks = new Map(merges.map((merge, rank) => [merge, rank]));
  }

  encode(text) {
    const read = text.normalize("NFC");
    if (this.kind === "character") return [...read].map((letter) => this.idOf(letter));
    return (read.match(PARTS) ?? []).flatMap((part) => this.merged(part).map((token) => this.idOf(token)));
  }

  // special tokens have ids that no text gives
  idOf(token) {
    const id = this.ids.get(token);
    return id === undefined || id < SPECIAL ? UNKNOWN : id;
  }

  merged(part) {
    const tokens = [...new TextEncoder().encode(part)].map((byte) => LETTERS[byte]);
    for (;;) {
      let [best, at] = [Infinity, -1];
      for (let place = 0; place + 1 < tokens.length; place++) {
        const rank = this.ranks.get(`${tokens[place]} ${tokens[place + 1]}`) ?? Infinity;
        if (rank < best) [best, at] = [rank, place];
      }
      if (at < 0) return tokens;
      const [one, two] = tokens.slice(at, at + 2);
      for (let place = at; place + 1 < tokens.length; place++) {
        if (tokens[place] === one && tokens[place + 1] === two) tokens.splice(place, 2, one + two);
      }
    }
  }

  decode(ids) {
    const kept = ids.filter((id) => id >= SPECIAL).map((id) => this.tokens[id]);
    if (this.kind === "character") return kept.join("");
    return new TextDecoder().decode(Uint8Array.from(kept.join(""), (letter) => BYTES.get(letter)));
  }

  /** A token as it is shown. */
  name(id) {
    return id < SPECIAL ? this.tokens[id] : this.decode([id]);
  }
}
