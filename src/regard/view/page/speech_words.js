// What the page says of sounds, in each language.

export const SPEECH = {
  en: {
    kindOnSound: "text on the sound",
    kindInSound: "within the sound",
    soundPart: "Sound",
    transcript: "Transcript",
    soundName: (number) => `sound ${number}`,
    sound: (number, count) => `sound${number === null ? "" : ` ${number}`} · ${count} frames`,
    seconds: (count) => `${count.toFixed(2)} s`,
    stretch: (start, end) => `spoken from ${start.toFixed(2)} to ${end.toFixed(2)} s`,
    listen: "listen",
    soundHint: "Point at a time to see which words looked there; a click plays from there.",
    noSound: (why) => `The sound itself cannot be shown (${why}).`,
  },
  zh: {
    kindOnSound: "转写看声音",
    kindInSound: "声音之内",
    soundPart: "声音",
    transcript: "转写",
    soundName: (number) => `声音 ${number}`,
    sound: (number, count) => `声音${number === null ? "" : ` ${number}`} · ${count} 帧`,
    seconds: (count) => `${count.toFixed(2)} 秒`,
    stretch: (start, end) => `说出于 ${start.toFixed(2)}–${end.toFixed(2)} 秒`,
    listen: "播放",
    soundHint: "指向一个时刻，可看哪些词看了那里；点击从那里播放。",
    noSound: (why) => `声音本身无法显示（${why}）。`,
  },
};
