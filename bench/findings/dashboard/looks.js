// What lines look like: a colour for the recipe, a dash and a marker for its settings; and what they are called.

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const SHAPES = [
  "circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "pentagon", "hexagram", "cross",
  "triangle-left", "triangle-right", "diamond-tall", "diamond-wide", "hourglass", "bowtie",
];
const SYMBOLS = ["", ...SHAPES.slice(1)]; // of lines; the first has none, or a circle where each point counts
const POINTS = ["", "-open", "-dot", "-open-dot"].flatMap((kind) => SHAPES.map((shape) => shape + kind)); // of single points

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const parsed = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const rgba = (hex, alpha) => `rgba(${parsed(hex).join(",")},${alpha})`;
function shade(recipe) {
  const palette = data.colors[isDark() ? "dark" : "light"];
  return palette[recipe] ?? palette.others;
}

// By the key of each entry ({ key, recipe }): the colour, and a dash, a marker and a point that no other entry of that
// colour has.
function looks(entries) {
  const seen = {};
  return new Map(entries.map(({ key, recipe }) => {
    const color = shade(recipe);
    const order = (seen[color] = (seen[color] ?? -1) + 1);
    return [key, {
      color, dash: DASHES[order % DASHES.length], symbol: SYMBOLS[Math.floor(order / DASHES.length) % SYMBOLS.length],
      point: POINTS[order % POINTS.length],
    }];
  }));
}

// By label: the name of each arm, with exactly the settings in which the given arms differ.
function namesOf(arms) {
  const keys = [...new Set(arms.flatMap((arm) => Object.keys(arm.settings)))];
  const differing = keys.filter((key) => new Set(arms.map((arm) => arm.settings[key])).size > 1);
  return new Map(arms.map((arm) => [arm.label, [arm.name, ...differing.filter((key) => key in arm.settings)
    .map((key) => `${key}=${arm.settings[key]}`)].join(", ")]));
}

function lineOf({ color, dash, symbol }, width = 2) {
  return {
    mode: symbol ? "lines+markers" : "lines", line: { color, dash, width },
    marker: symbol ? { color, symbol, size: 8, maxdisplayed: 12 } : { color, size: 6 },
  };
}

const STROKES = { solid: "", dash: "6 3", dot: "2 3", dashdot: "6 3 2 3", longdash: "11 3", longdashdot: "11 3 2 3" };
const MARKS = {
  circle: "<circle cx='17' cy='6' r='4'/>", square: "<rect x='13' y='2' width='8' height='8'/>", diamond: "<path d='M17 1l5 5-5 5-5-5z'/>",
  "triangle-up": "<path d='M17 1l5 9h-10z'/>", x: "<path d='M13 2l8 8m0-8l-8 8' stroke-width='3'/>", star: "<path d='M17 0l2 4 4 .5-3 3 1 4.500-4-2-4 2 1-4.500-3-3 4-.5z'/>",
};
function swatch({ color, dash, symbol }) {
  return `<svg width="34" height="12" aria-hidden="true" fill="${color}" stroke="${color}"><line x1="0" y1="6" x2="34" y2="6"
    stroke-width="3" stroke-dasharray="${STROKES[dash]}"/>${MARKS[symbol] ?? ""}</svg>`;
}
