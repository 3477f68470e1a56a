// An embedding that is drawn at random, the same for the same word: what `random_embedding` of view/steps.py gives.

/** The first four bytes of SHA-256 of a text, as a number (FIPS 180-4). */
export function hashed(text) {
  const bytes = new TextEncoder().encode(text);
  const words = new Uint32Array((((bytes.length + 8) >> 6) + 1) * 16);
  bytes.forEach((byte, place) => (words[place >> 2] |= byte << (24 - 8 * (place % 4))));
  words[bytes.length >> 2] |= 0x80 << (24 - 8 * (bytes.length % 4));
  words[words.length - 1] = bytes.length * 8;
  const { roots, constants } = PRIMES;
  const state = Uint32Array.from(roots);
  const turn = (word, by) => (word >>> by) | (word << (32 - by));
  for (let start = 0; start < words.length; start += 16) {
    const schedule = new Uint32Array(64);
    schedule.set(words.subarray(start, start + 16));
    let [a, b, c, d, e, f, g, h] = state;
    for (let round = 0; round < 64; round++) {
      if (round >= 16) {
        const [one, two] = [schedule[round - 15], schedule[round - 2]];
        const small = turn(one, 7) ^ turn(one, 18) ^ (one >>> 3);
        schedule[round] = schedule[round - 16] + small + schedule[round - 7] + (turn(two, 17) ^ turn(two, 19) ^ (two >>> 10));
      }
      const first = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + constants[round] + schedule[round]) | 0;
      const second = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((value, place) => (state[place] += value));
  }
  return state[0];
}

// the first 32 bits of the fractions of square and cube roots of the first primes
const PRIMES = (() => {
  const primes = [];
  for (let number = 2; primes.length < 64; number++) if (primes.every((prime) => number % prime)) primes.push(number);
  const fraction = (root) => Math.floor((root - Math.floor(root)) * 2 ** 32);
  return { roots: primes.slice(0, 8).map((prime) => fraction(Math.sqrt(prime))), constants: primes.map((prime) => fraction(Math.cbrt(prime))) };
})();

/** Numbers between 0 and 1 as torch draws float32: Matsumoto and Nishimura 1998, "Mersenne twister". */
export function uniform(seed, count) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let place = 1; place < 624; place++) {
    state[place] = Math.imul(1812433253, state[place - 1] ^ (state[place - 1] >>> 30)) + place;
  }
  for (let place = 0; place < 624; place++) {
    const joined = (state[place] & 0x80000000) | (state[(place + 1) % 624] & 0x7fffffff);
    state[place] = state[(place + 397) % 624] ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
  }
  return Array.from({ length: count }, (_, place) => {
    let value = state[place];
    value ^= value >>> 11;
    value ^= (value << 7) & 0x9d2c5680;
    value ^= (value << 15) & 0xefc60000;
    value ^= value >>> 18;
    return (value & 0xffffff) / 2 ** 24;
  });
}

export function embedding(token) {
  return uniform(hashed(token), 3).map((value) => Math.round(Math.fround(value * 100)) / 100);
}
