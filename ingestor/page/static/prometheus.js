// Reads Prometheus' text format, and what two readings say: rates, and quantiles of histograms.
// A counter that went back (the server began anew) gives nothing, rather than something wrong.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { n: "\n", '"': '"', "\\": "\\" };

/** A reading: each metric's samples, by the name that they are written with. */
export function parse(text) {
  const byName = new Map();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const [, name, labels = "", value] = SAMPLE.exec(line) ?? [];
    if (name === undefined) continue;
    if (!byName.has(name)) byName.set(name, []);
    byName.get(name).push({ labels: labelsOf(labels), value: numberOf(value) });
  }
  return byName;
}

function labelsOf(text) {
  const found = {};
  for (const [, name, value] of text.matchAll(LABEL)) found[name] = value.replace(/\\(.)/g, (_, each) => ESCAPES[each] ?? each);
  return found;
}

function numberOf(text) {
  return { "+Inf": Infinity, "-Inf": -Infinity }[text] ?? Number(text);
}

/** The sum of a metric's samples, of those that `of` takes; null when there are none. */
export function total(reading, name, of = () => true) {
  const values = (reading.get(name) ?? []).filter(({ labels }) => of(labels)).map(({ value }) => value);
  return values.length ? values.reduce((sum, value) => sum + value, 0) : null;
}

/** By how much a counter has grown between two readings; null where that can't be told. */
export function growth(before, after, name, of) {
  const [was, is] = [total(before, name, of), total(after, name, of)];
  return was === null || is === null || is < was ? null : is - was;
}

/** The quantile `q` of what a histogram counted between two readings, within its bucket by a straight line, as
    Prometheus estimates it; null when it counted nothing. */
export function quantile(before, after, name, q, of) {
  const [was, is] = [buckets(before, name, of), buckets(after, name, of)];
  const counts = [...is].map(([bound, count]) => [bound, count - (was.get(bound) ?? 0)]).sort(([a], [b]) => a - b);
  if (!counts.length || counts.some(([, count]) => count < 0)) return null;
  const all = counts[counts.length - 1][1];
  if (!all) return null;
  const index = counts.findIndex(([, count]) => count >= q * all);
  const [low, below] = index ? counts[index - 1] : [0, 0];
  const [high, upTo] = counts[index];
  return high === Infinity ? low : low + (high - low) * ((q * all - below) / (upTo - below));
}

function buckets(reading, name, of = () => true) {
  const sums = new Map();
  for (const { labels, value } of reading.get(`${name}_bucket`) ?? []) {
    if (!of(labels)) continue;
    const bound = numberOf(labels.le);
    sums.set(bound, (sums.get(bound) ?? 0) + value);
  }
  return sums;
}
