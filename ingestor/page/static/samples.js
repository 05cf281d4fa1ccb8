// What two readings of /metrics say of the time between them, and the last five minutes of that.

import { growth, quantile, total } from "./prometheus.js";

export const KEPT_S = 300;
const SHOWN_MIN_S = 60;
const RECENT_S = 10;
const STEADY_S = 4.5; // rates of less would jump with what comes in lots
const NO_FAILURES = ["OK", "CANCELLED"];
const TAKING = /\/(LogMetric|LogMetrics|WriteSeries)$/; // a stream of batches is one call, however long

const taking = ({ rpc }) => TAKING.test(rpc);
const failed = ({ code }) => !NO_FAILURES.includes(code);

/** A sample of the time between two readings; `t` in seconds. What can't be told is null. */
export function sampleOf(before, after) {
  const seconds = after.t - before.t;
  const perSecond = (name, of) => {
    const grown = growth(before.reading, after.reading, name, of);
    return grown === null ? null : grown / seconds;
  };
  const between = (name, q, of) => quantile(before.reading, after.reading, name, q, of);
  const now = (name) => total(after.reading, name);
  return {
    t: after.t,
    received: perSecond("ingestor_metrics_received_total"),
    committed: perSecond("ingestor_metrics_committed_total"),
    ack50: between("ingestor_rpc_seconds", 0.5, taking),
    ack99: between("ingestor_rpc_seconds", 0.99, taking),
    flush50: between("ingestor_flush_seconds", 0.5),
    flush99: between("ingestor_flush_seconds", 0.99),
    errors: perSecond("ingestor_rpc_total", failed),
    pending: now("ingestor_metrics_pending"),
    capacity: now("ingestor_queue_capacity"),
    oldest: now("ingestor_queue_oldest_age_seconds"),
    journal: now("ingestor_journal_bytes"),
    journalMax: now("ingestor_journal_bytes_max"),
    journalRoom: now("ingestor_journal_room_bytes"),
    dead: now("ingestor_metrics_dead_lettered_total"),
    refused: now("ingestor_metrics_refused_total"),
    rejected: now("ingestor_metrics_rejected_total"),
    flushFailures: now("ingestor_flush_failures_total"),
    lost: now("ingestor_metrics_lost_total"),
    receivedTotal: now("ingestor_metrics_received_total"),
    committedTotal: now("ingestor_metrics_committed_total"),
  };
}

/** Metrics a second by service, the largest first. */
export function ratesOf(before, after) {
  const name = "ingestor_service_metrics_committed_total";
  const seconds = after.t - before.t;
  const counts = (after.reading.get(name) ?? []).filter(({ labels, value }) => labels.service || value);
  const known = new Map((before.reading.get(name) ?? []).map(({ labels, value }) => [labels.service, value]));
  return counts
    // A service that was not there had sent nothing: all others were, and the nameless rest is from the start.
    .map(({ labels, value }) => ({ service: labels.service, rate: Math.max(0, value - (known.get(labels.service) ?? 0)) / seconds }))
    .sort((a, b) => b.rate - a.rate || a.service.localeCompare(b.service));
}

/** The readings and samples of the last minutes. */
export class Samples {
  #readings = [];
  list = [];

  /** Takes a reading, in the order of time. Over a pause that nobody looked at, no sample is made. */
  add(t, reading) {
    const last = this.#readings.at(-1);
    const now = { t, reading };
    this.#readings = [...this.#readings.filter((each) => each.t > t - RECENT_S - 2), now];
    if (!last) return;
    if (t - last.t > RECENT_S) this.list.push({ t: last.t + 0.001 }); // a gap in the lines
    const steady = this.#readings.find((each) => each.t >= t - STEADY_S && each !== now);
    this.list.push(sampleOf(steady ?? last, now));
    this.list = this.list.filter((each) => each.t >= t - KEPT_S);
  }

  /** From when to when they are shown: a minute at first, which grows. */
  get range() {
    const [first, last] = [this.list[0].t, this.latest.t];
    return [Math.min(first, last - SHOWN_MIN_S), last];
  }

  get latest() {
    return this.list.at(-1);
  }

  /** Each service's rate over the last ten seconds. */
  get services() {
    const [first] = this.#readings;
    const last = this.#readings.at(-1);
    return first && first !== last ? ratesOf(first, last) : [];
  }
}
