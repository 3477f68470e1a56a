// A sound as a kind of attention looks at it: the seconds that each frame stands for, and the times of words.

// the first sound of which a kind has frames among its keys; null where it has none
export function track(kind, reading) {
  const { spans } = kind.looked;
  const sounds = (reading.media ?? []).flatMap((each, number) => (each.sort === "sound" ? [{ ...each, number }] : []));
  if (!spans || !sounds.length) return null;
  const index = spans.sound.find((sound, place) => sounds[sound] && spans.tokens[place] < kind.keys) ?? -1;
  if (index < 0) return null;
  const times = (kind.kind === "cross" ? (reading.word_times ?? []) : []).map(([word, start, end]) => ({ word, start, end }));
  return new Track(kind, sounds[index], index, spans, times);
}

class Track {
  constructor(kind, sound, index, spans, times) {
    Object.assign(this, { sound, index, times });
    const own = spans.tokens.flatMap((token, place) => (spans.sound[place] === index && token < kind.keys ? [place] : []));
    this.tokens = own.map((place) => spans.tokens[place]);
    this.starts = own.map((place) => spans.starts[place]);
    this.ends = own.map((place) => spans.ends[place]);
    const { sequence } = kind;
    this.asking = { words: sequence.words, wordText: (word) => textOf(sequence, word) };
    // of the frames between the first and the last, which the sound's ends cut
    this.half = Math.max(...this.ends.map((end, place) => end - this.starts[place])) / 2;
  }

  // all weight on the sound
  share(vector, join) {
    return this.tokens.reduce((sum, token) => join(sum, vector[token]), 0);
  }

  // the frame that stands for a second; null where none does
  at(second) {
    const place = this.ends.findIndex((end) => second < end);
    return place < 0 || this.starts[place] > second ? null : this.tokens[place];
  }

  // of so many equal parts of the sound the weight for each second there
  over(vector, count) {
    const found = new Float32Array(count);
    const { seconds } = this.sound;
    let place = 0;
    for (let part = 0; part < count; part++) {
      const second = ((part + 0.5) / count) * seconds;
      while (place < this.ends.length - 1 && this.ends[place] <= second) place++;
      const isInside = this.starts[place] <= second && second < this.ends[place];
      found[part] = isInside ? vector[this.tokens[place]] / (this.ends[place] - this.starts[place]) : 0;
    }
    return found;
  }
}

function textOf({ words, starts, ends, text }, word) {
  const first = words.indexOf(word);
  return text.slice(starts[first], ends[words.lastIndexOf(word)]).trim();
}
