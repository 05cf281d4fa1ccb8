// Numbers with their units, and moments in the reader's own time zone.

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: 3 });
const fine = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
const tenths = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dated = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const HOUR_S = 3600;
const MINUTE_S = 60;
const DAY_S = 86_400;
const DIGITS = 4;
const DIGITS_MAX = 15; // a double has no more

/** Each of these gives a number and its unit, apart. */
export const units = {
  count: (value) => [countOf(value), ""],
  total: (value) => [value < 1e9 ? whole.format(value) : short.format(value), ""],
  rate: (value) => [countOf(value), "/s"],
  seconds: (value) => secondsOf(value),
  bytes: (value) => bytesOf(value),
};

function countOf(value) {
  if (value >= 100_000) return short.format(value);
  return value >= 100 || Number.isInteger(value) ? whole.format(value) : fine.format(value);
}

function secondsOf(value) {
  if (value === 0) return ["0", "s"];
  if (value < 0.001) return [fine.format(value * 1e6), "µs"];
  if (value < 1) return [fine.format(value * 1e3), "ms"];
  if (value < 120) return [fine.format(value), "s"];
  if (value < 7200) return [whole.format(value / 60), "min"];
  return value < 2 * DAY_S ? [fine.format(value / 3600), "h"] : [fine.format(value / DAY_S), "d"];
}

function bytesOf(value) {
  const steps = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), steps.length - 1);
  return [fine.format(value / 1024 ** step), steps[step]];
}

/** As one text. */
export function told(value, unit) {
  if (value === null || value === undefined) return "–";
  const [number, name] = units[unit](value);
  return name ? `${number}${name.startsWith("/") ? "" : "\u00a0"}${name}` : number;
}

/** Into an element, with the unit smaller. */
export function show(element, value, unit) {
  if (value === null || value === undefined) {
    element.textContent = "–";
    return;
  }
  const [number, name] = units[unit](value);
  const small = document.createElement("small");
  small.textContent = name;
  element.replaceChildren(number, ...(name ? [small] : []));
}

/** A series' values by the end of its metric's name, as many name them. */
export function unitOf(metric) {
  const [, end = ""] = /_(ms|milliseconds|s|seconds|bytes|percent|celsius)$/.exec(metric) ?? [];
  return { ms: "ms", milliseconds: "ms", s: "s", seconds: "s", bytes: "bytes", percent: "%", celsius: "°C" }[end] ?? "";
}

/** A value of any size, in so many digits: none of it is wider than a phone. */
export function toldIn(value, unit, digits = DIGITS) {
  if (value === null || value === undefined) return "–";
  if (unit === "bytes" && digits <= DIGITS) return told(value, "bytes");
  const number = plainOf(value, digits);
  return unit ? `${number}\u00a0${unit}` : number;
}

/** The labels of an axis whose marks lie `step` apart, so exact that no two are the same. */
export function marksIn(marks, step, unit) {
  const most = Math.max(...marks.map(Math.abs));
  const digits = most && step ? Math.floor(Math.log10(most)) - Math.floor(Math.log10(step)) + 2 : DIGITS;
  return marks.map((mark) => toldIn(mark, unit, Math.min(Math.max(digits, 1), DIGITS_MAX)));
}

function plainOf(value, digits) {
  const size = Math.abs(value);
  if (size && (size < 1e-6 || size >= 1e15)) return new Intl.NumberFormat(undefined, { notation: "scientific", maximumSignificantDigits: digits }).format(value);
  if (size >= 1e9) return new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: digits }).format(value);
  // A whole number below that is told whole.
  const wholes = size >= 1 ? Math.floor(Math.log10(size)) + 1 : 0;
  return new Intl.NumberFormat(undefined, { maximumSignificantDigits: Math.max(digits, wholes) }).format(value);
}

/** A span of time that is round in one of its units: `30 s`, `5 min`, `1 h`. */
export function span(seconds) {
  const [size, name] = [[DAY_S, "d"], [HOUR_S, "h"], [MINUTE_S, "min"]].find(([each]) => seconds >= each && seconds % each === 0) ?? [1, "s"];
  return `${plainOf(seconds / size, DIGITS)}\u00a0${name}`;
}

export const atClock = (seconds) => clock.format(seconds * 1000);
export const atDate = (seconds) => dated.format(seconds * 1000);
export const share = (part) => `${tenths.format(part * 100)}\u00a0%`;
