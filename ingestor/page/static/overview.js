// The gateway's own figures: one large chart and six small ones, which share a cursor. Under it, all figures are
// those of its moment.

import { TimeChart } from "./charts.js";
import { atClock, show, told } from "./format.js";
import { table, whenOpen } from "./tables.js";

const SYNC = "gateway";
const ROWS = 30;

/** Of each: the main figure, the note beside it, and the lines of its chart. `trouble` marks what should be nothing. */
const MULTIPLES = [
  { id: "ack", title: "Acknowledged, p99", unit: "seconds", main: "ack99", lines: ["ack99", "ack50"],
    note: (s) => (s.ack50 == null ? "no calls" : `p50 ${told(s.ack50, "seconds")}`) },
  { id: "flush", title: "Flush, p99", unit: "seconds", main: "flush99", lines: ["flush99", "flush50"],
    note: (s) => (s.flush50 == null ? "no flushes" : `p50 ${told(s.flush50, "seconds")}`) },
  { id: "queue", title: "Waiting for the database", unit: "count", main: "pending", lines: ["pending"],
    note: (s) => (s.journalMax ? "metrics" : `of ${told(s.capacity, "count")} metrics`) },
  { id: "oldest", title: "Oldest waiting", unit: "seconds", main: "oldest", lines: ["oldest"], note: () => "since it was taken" },
  { id: "journal", title: "Journal", unit: "bytes", main: "journal", lines: ["journal"],
    note: (s) => (s.journalMax ? `of ${told(s.journalMax, "bytes")}; room for ${told(s.journalRoom, "bytes")}` : "in memory: a crash loses what waits") },
  { id: "errors", title: "Failed calls", unit: "rate", main: "errors", lines: ["errors"], note: troubles,
    trouble: (s) => s.errors > 0 || s.dead > 0 || s.lost > 0 },
];

function troubles(s) {
  const named = { "dead letters": s.dead, lost: s.lost, refused: s.refused, rejected: s.rejected, "failed flushes": s.flushFailures };
  const some = Object.entries(named).filter(([name, count]) => count > 0 || name === "dead letters");
  return some.map(([name, count]) => `${told(count ?? 0, "total")} ${name}`).join(", ");
}

export class Overview {
  #samples;
  #charts = [];
  #at = null;
  #drawing = 0;
  #fill;

  constructor(samples) {
    this.#samples = samples;
    const cursor = (index) => this.#point(index);
    this.#add(document.getElementById("throughput"), ["received", "committed"],
      { lines: ["beneath", "main"], told: (marks) => marks.map((value) => told(value, "rate")), zero: true, sync: SYNC, cursor });
    for (const each of MULTIPLES) {
      this.#add(make(each), each.lines, { lines: ["main", "other"].slice(0, each.lines.length), zero: true, sync: SYNC, cursor });
    }
    this.#fill = whenOpen(document.getElementById("recent"), () => this.#table());
  }

  /** Shows what the samples say by now. */
  refresh() {
    const { list, latest } = this.#samples;
    if (!latest) return;
    const { range } = this.#samples;
    const times = list.map(({ t }) => t);
    for (const [chart, names] of this.#charts) {
      chart.show([times, ...names.map((name) => list.map((sample) => sample[name] ?? null))], range);
    }
    for (const { id, main, unit } of MULTIPLES) {
      const values = list.map((sample) => sample[main]).filter((value) => value != null);
      document.querySelector(`#${id} .peak`).textContent = values.length ? `peak ${told(Math.max(...values), unit)}` : "";
    }
    this.#figures();
    this.#fill();
  }

  #add(place, names, options) {
    this.#charts.push([new TimeChart(place, options), names]);
  }

  #point(index) {
    this.#at = index === null ? null : this.#samples.list[index]?.t ?? null;
    cancelAnimationFrame(this.#drawing);
    this.#drawing = requestAnimationFrame(() => this.#figures());
  }

  #figures() {
    const pointed = this.#at === null ? null : this.#samples.list.find(({ t }) => t === this.#at);
    const sample = pointed ?? this.#samples.latest;
    if (!sample) return;
    document.getElementById("when").textContent = pointed ? `at ${atClock(pointed.t)}` : `now, and the last ${told(Math.round(this.#samples.range[1] - this.#samples.range[0]), "seconds")}`;
    show(document.getElementById("committed"), sample.committed, "rate");
    show(document.getElementById("received"), sample.received, "rate");
    document.getElementById("totals").textContent =
      `${told(sample.committedTotal, "total")} metrics committed since this gateway’s start`;
    for (const { id, main, unit, note, trouble } of MULTIPLES) {
      const place = document.getElementById(id);
      show(place.querySelector(".large"), sample[main], unit);
      place.querySelector(".pair .note").textContent = sample.capacity === undefined ? "" : note(sample);
      place.classList.toggle("trouble", Boolean(trouble?.(sample)));
    }
  }

  #table() {
    const columns = [["Committed", "committed", "rate"], ["Received", "received", "rate"],
      ...MULTIPLES.map(({ title, main, unit }) => [title, main, unit])];
    const rows = this.#samples.list.slice(-ROWS).reverse()
      .map((sample) => [atClock(sample.t), ...columns.map(([, name, unit]) => told(sample[name], unit))]);
    return table("The last minute, the newest first", ["Time", ...columns.map(([title]) => title)], rows);
  }
}

function make({ id, title, lines }) {
  const made = document.getElementById("multiple").content.cloneNode(true).firstElementChild;
  made.id = id;
  made.classList.toggle("two", lines.length > 1);
  made.querySelector("h3").textContent = title;
  document.getElementById("multiples").append(made);
  return made.querySelector(".plot");
}
