// A sound over time: its waveform, below it the heat of what was looked at, and when each word was spoken.

import { element, sized } from "./dom.js";
import { step } from "./colours.js";
import { format } from "./language.js";

const [WAVE, GAP, STRIP, AXIS, NAMES] = [64, 4, 26, 18, 16];
const TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200];
const TICK_EVERY = 64;
const MOST_SECONDS = 3600;

export class SpeechPanel {
  // `set` changes what is chosen
  constructor(view, set) {
    Object.assign(this, { view, set, width: 0, failure: null, cursor: null });
    this.head = element("div", { class: "panel-head" });
    this.canvas = element("canvas", { tabindex: "0", role: "application" });
    this.marks = element("canvas", { class: "marks" });
    this.box = element("div", { class: "speech-box" }, this.canvas, this.marks);
    this.readout = element("p", { class: "readout", "aria-live": "polite" });
    this.panel = element("section", { class: "panel speech" }, this.head, this.box, this.readout);
    this.player = element("audio", { controls: true, preload: "metadata" });
    for (const event of ["timeupdate", "seeked", "play"]) this.player.addEventListener(event, () => this.follow());
    this.observer = new ResizeObserver(([{ contentRect }]) => {
      if (Math.floor(contentRect.width) === this.width) return;
      this.width = Math.floor(contentRect.width);
      this.set({});
    });
    this.observer.observe(this.box);
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("click", (event) => this.seek(this.second(event.offsetX)));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  get track() {
    return this.view.kind?.track ?? null;
  }

  close() {
    this.observer.disconnect();
    this.player.pause();
    if (this.address) URL.revokeObjectURL(this.address);
  }

  update() {
    const { track, view } = this;
    this.panel.hidden = !track;
    if (!track) return;
    this.title();
    if (this.shown !== track) this.open(track);
    if (!this.width) return;
    const sign = [view.palette.theme, this.width, this.peaks ? 1 : 0].join();
    if (sign !== this.sign || view.current.vector !== this.vector) this.draw();
    Object.assign(this, { sign, vector: view.current.vector });
    this.mark();
    this.tell();
  }

  title() {
    const { view, track } = this;
    const { words, current } = view;
    const { name, seconds } = track.sound;
    const share = current.vector ? format(track.share(current.vector, view.join)) : "";
    const told = `${words.soundName(track.index + 1)} ${share}`;
    const sign = `${told} ${view.language}`;
    if (sign === this.titled) return;
    this.titled = sign;
    if (!this.facts) {
      this.label = element("h2", {});
      this.facts = element("span", { class: "facts" });
      this.head.replaceChildren(this.label, this.facts, element("span", { class: "grow" }), this.player);
    }
    this.label.replaceChildren(words.soundName(track.index + 1), " ", element("b", {}, share));
    this.facts.textContent = `${name} · ${words.seconds(seconds)}`;
    this.player.setAttribute("aria-label", words.listen);
    this.canvas.setAttribute("aria-label", words.soundHint);
  }

  // the file is fetched once, played as it is, and decoded for its waveform
  async open(track) {
    Object.assign(this, { shown: track, peaks: null, failure: null });
    try {
      const { number, media_type: type, seconds } = track.sound;
      const { view } = await this.view.reading.ask({ type: "medium", number });
      if (this.shown !== track) return;
      if (this.address) URL.revokeObjectURL(this.address);
      const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
      this.address = URL.createObjectURL(new Blob([bytes], { type }));
      this.player.setAttribute("src", this.address);
      if (seconds > MOST_SECONDS) throw new Error(`${seconds} s`);
      const decoded = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes);
      if (this.shown === track) this.peaks = decoded.getChannelData(0);
    } catch (error) {
      this.failure = error.message || error.name;
    }
    this.set({});
  }

  second(x) {
    return Math.max(0, Math.min(this.track.sound.seconds, (x / this.width) * this.track.sound.seconds));
  }

  x(second) {
    return (second / this.track.sound.seconds) * this.width;
  }

  get top() {
    return this.track.times.length ? NAMES : 0;
  }

  draw() {
    const { view, track, width, top } = this;
    const { palette, current } = view;
    const context = sized(this.canvas, width, top + WAVE + GAP + STRIP + AXIS);
    this.box.style.height = `${top + WAVE + GAP + STRIP + AXIS}px`;
    context.font = `11px ${getComputedStyle(this.canvas).fontFamily}`;
    this.wave(context);
    // each place of the strip has the weight of a second there
    if (current.vector) {
      const places = track.over(current.vector, Math.max(1, width));
      const largest = places.reduce((most, value) => Math.max(most, value), 0);
      places.forEach((value, place) => {
        context.fillStyle = palette.css[step(value, largest)];
        context.fillRect(place, top + WAVE + GAP, 1, STRIP);
      });
    }
    context.fillStyle = palette.faint;
    context.textBaseline = "bottom";
    const { seconds } = track.sound;
    const every = TICKS.find((tick) => (tick / seconds) * width >= TICK_EVERY) ?? TICKS.at(-1);
    for (let number = 0; number * every < seconds; number++) {
      const at = this.x(number * every);
      context.fillRect(at, top + WAVE + GAP + STRIP, 1, 4);
      const told = `${Math.round(number * every * 10) / 10}${number ? "" : " s"}`;
      if (at + context.measureText(told).width < width) context.fillText(told, at + 3, top + WAVE + GAP + STRIP + AXIS);
    }
    this.names(context);
  }

  wave(context) {
    const { peaks, width, top, view } = this;
    if (!peaks) return;
    const most = peaks.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1e-6);
    context.fillStyle = view.palette.faint;
    for (let x = 0; x < width; x++) {
      const start = Math.floor((x * peaks.length) / width);
      const end = Math.max(start + 1, Math.floor(((x + 1) * peaks.length) / width));
      let [low, high] = [0, 0];
      for (let place = start; place < Math.min(end, peaks.length); place++) {
        low = Math.min(low, peaks[place]);
        high = Math.max(high, peaks[place]);
      }
      const tall = ((high - low) / most) * (WAVE / 2);
      context.fillRect(x, top + WAVE / 2 - (high / most) * (WAVE / 2), 1, Math.max(1, tall));
    }
  }

  // each word where it begins, as far as there is room
  names(context) {
    const { track, view } = this;
    let free = 0;
    context.fillStyle = view.palette.ink;
    for (const { word, start } of track.times) {
      const at = this.x(start);
      const name = track.asking.wordText(word);
      const wide = context.measureText(name).width;
      context.globalAlpha = 0.35;
      context.fillRect(at, NAMES, 1, WAVE);
      context.globalAlpha = 1;
      if (at < free || at + wide > this.width) continue;
      context.fillText(name, at, NAMES - 2);
      free = at + wide + 6;
    }
  }

  // the word that is pinned or pointed at, the place under the pointer, and where the player is
  mark() {
    const { view, width, top } = this;
    const context = sized(this.marks, width, top + WAVE + GAP + STRIP + AXIS);
    const active = this.active();
    if (active) {
      const { palette } = view;
      context.fillStyle = palette.css.at(-1);
      context.globalAlpha = 0.22;
      context.fillRect(this.x(active.start), top, this.x(active.end - active.start), WAVE);
      context.globalAlpha = 1;
      context.strokeStyle = palette.ink;
      context.lineWidth = 1.5;
      context.strokeRect(this.x(active.start) + 0.5, top + WAVE + GAP + 0.5, Math.max(2, this.x(active.end - active.start)) - 1, STRIP - 1);
    }
    context.fillStyle = view.palette.ink;
    for (const second of [this.cursor, this.player.currentTime || null]) {
      if (second !== null) context.fillRect(Math.min(width - 1, this.x(second)), top, 1, WAVE + GAP + STRIP);
    }
  }

  // the time of the word that is active, where it is known
  active() {
    const { view, track } = this;
    const { tokens } = view.current;
    if (!tokens) return null;
    const words = track.asking.words.slice(tokens[0], tokens[1]);
    const own = track.times.filter(({ word }) => words.includes(word));
    return own.length ? { start: own[0].start, end: own.at(-1).end } : null;
  }

  tell() {
    const { view, cursor } = this;
    const { words, current, usage, spot } = view;
    let told = this.failure ? words.noSound(this.failure) : words.soundHint;
    const active = this.active();
    if (active && current.name) told = `${current.name} · ${words.stretch(active.start, active.end)}`;
    if (spot && cursor !== null && current.vector) {
      const share = spot.tokens.reduce((sum, token) => view.join(sum, current.vector[token]), 0);
      told = `${words.seconds(cursor)} · ${format(share)}`;
      const best = usage?.byUnit.indexOf(usage.largest) ?? -1;
      if (best >= 0 && usage.largest > 0) told += ` · ${words.mostBy(view.matrix.rows[best].name, format(usage.largest))}`;
    }
    if (this.readout.textContent !== told) this.readout.textContent = told;
  }

  // lights the words that looked at the frame there
  point(x) {
    const { track, view } = this;
    if (!track) return;
    this.cursor = x === null ? null : this.second(x);
    const token = this.cursor === null ? null : track.at(this.cursor);
    const spot = token === null ? null : { image: null, tokens: [token] };
    if (String(view.spot?.tokens) !== String(spot?.tokens)) this.set({ spot });
    else this.mark();
  }

  seek(second) {
    this.player.currentTime = second;
    this.player.play().catch(() => {});
  }

  follow() {
    this.mark();
    if (!this.player.paused) requestAnimationFrame(() => this.follow());
  }

  key(event) {
    const { track } = this;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) {
      const half = track.half;
      const now = this.cursor ?? -half;
      this.point(this.x(Math.max(half, Math.min(track.sound.seconds - half, now + 2 * half * by))));
    } else if (event.key === "Enter" || event.key === " ") {
      if (this.cursor !== null) this.seek(this.cursor);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
