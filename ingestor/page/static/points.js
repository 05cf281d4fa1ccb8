// What QueryMetrics answers, as a chart wants it: times and values, with a gap where there are no points.

/** `[times, values]` in seconds; between points that lie further apart than their interval there is a null. */
export function dataOf(answer) {
  const step = secondsOf(answer.interval);
  const [times, values] = [[], []];
  for (const { time, value } of answer.points) {
    const t = Date.parse(time) / 1000;
    const last = times.at(-1);
    if (last !== undefined && t - last > step * 1.5) {
      times.push(last + step);
      values.push(null);
    }
    times.push(t);
    values.push(Number.isFinite(Number(value)) ? Number(value) : null); // JSON has words for infinities
  }
  return [times, values];
}

/** Seconds of a duration as JSON writes it: `2.5s`. */
export function secondsOf(duration) {
  return Number.parseFloat(duration ?? "0") || 0;
}

/** Of sums and counts: without the interval that began before `from`, which is not all there. */
export function since([times, values], from) {
  const first = times.findIndex((t) => t >= from);
  return first < 0 ? [[], []] : [times.slice(first), values.slice(first)];
}

/** How many of these intervals have ended by `to`: of the last one, more may come. */
export function ended(times, step, to) {
  return times.length && times.at(-1) + step > to ? times.length - 1 : times.length;
}

/** As a chart draws them: what has ended, and the way from there to what has not. */
export function drawn([times, values], count) {
  return [times, values.map((value, at) => (at < count ? value : null)), values.map((value, at) => (count < values.length && at >= count - 1 ? value : null))];
}

/** The least, the greatest and the last of the values; null without any. */
export function summary(values) {
  const there = values.filter((value) => value !== null);
  if (!there.length) return null;
  return { least: Math.min(...there), greatest: Math.max(...there), last: there.at(-1), count: there.length };
}
