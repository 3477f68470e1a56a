// One hue whose lightness alone tells the weight, even steps to the eye, told apart by the colour-blind and in print.
// Ottosson 2020, "A perceptual color space for image processing" (OKLCH).

export const STEPS = 64;

function rgb(lightness, chroma, hue) {
  const angle = (hue * Math.PI) / 180;
  const [a, b] = [chroma * Math.cos(angle), chroma * Math.sin(angle)];
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((value) => {
    const kept = Math.min(1, Math.max(0, value));
    return Math.round(255 * (kept <= 0.0031308 ? 12.92 * kept : 1.055 * kept ** (1 / 2.4) - 0.055));
  });
}

const ENDS = {
  light: { from: [0.985, 0.012, 85], to: [0.68, 0.175, 48] },
  dark: { from: [0.235, 0.012, 60], to: [0.79, 0.155, 65] },
};
// of what is less than before or than nothing: as light, in blue
const LESS = {
  light: { from: [0.985, 0.012, 250], to: [0.6, 0.14, 250] },
  dark: { from: [0.235, 0.012, 250], to: [0.72, 0.13, 245] },
};

function ramp({ from, to }) {
  const steps = [];
  for (let step = 0; step < STEPS; step++) {
    const share = step / (STEPS - 1);
    steps.push(rgb(...from.map((start, axis) => start + share * (to[axis] - start))));
  }
  return steps;
}

export function palette(theme) {
  const steps = ramp(ENDS[theme]);
  const named = ([red, green, blue]) => `rgb(${red},${green},${blue})`;
  return {
    theme,
    steps,
    css: steps.map(named),
    less: ramp(LESS[theme]).map(named),
    // from this step on, text on the colour is dark in either theme
    dark: theme === "dark" ? Math.round(STEPS * 0.62) : 0,
    ink: theme === "dark" ? "#ece8e1" : "#22201c",
    faint: theme === "dark" ? "#8d877c" : "#77716a",
    line: theme === "dark" ? "#3b3832" : "#e2ddd4",
    onStrong: "#1c1a17",
  };
}

// the weak are shown a little stronger than they are: half of the largest weight is three fifths of the way
const POWER = 0.75;

export function step(value, largest) {
  if (!(value > 0) || !(largest > 0)) return 0;
  return Math.min(STEPS - 1, Math.round((value / largest) ** POWER * (STEPS - 1)));
}

// the scale as a strip along which the weight grows evenly
export function strip({ css }) {
  const stops = [0, 0.05, 0.15, 0.3, 0.5, 0.75, 1].map((share) => `${css[step(share, 1)]} ${100 * share}%`);
  return `linear-gradient(to right, ${stops.join()})`;
}
