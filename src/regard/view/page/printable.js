// Text as it can be shown: nothing in it turns the line around, hides, or acts on a terminal it is pasted into.

// joiners spell in Persian, Indic scripts and emoji, and stay
const UNSHOWN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;
const NAMED = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

export function printable(text) {
  return text.replace(UNSHOWN, (letter) => {
    if (letter === "\u200c" || letter === "\u200d") return letter;
    if (letter in NAMED) return NAMED[letter];
    const code = letter.codePointAt(0);
    if (code <= 0xff) return `\\x${code.toString(16).padStart(2, "0")}`;
    if (code <= 0xffff) return `\\u${code.toString(16).padStart(4, "0")}`;
    return `\\U${code.toString(16).padStart(8, "0")}`;
  });
}

export function shorten(text, most) {
  const letters = [...text];
  return letters.length <= most ? text : `${letters.slice(0, most - 1).join("")}…`;
}
