// One series over time: range, aggregation, and its chart, which is asked for again as long as somebody looks.

import { TimeChart } from "./charts.js";
import { AGGREGATIONS, RANGES, read, unaskable, write } from "./choice.js";
import { atDate, marksIn, span, toldIn, unitOf } from "./format.js";
import { dataOf, drawn, ended, secondsOf, since, summary } from "./points.js";
import { Poller } from "./poller.js";
import { isolated, table, whenOpen } from "./tables.js";

const REFRESH_MIN_MS = 2_000;
const REFRESH_MAX_MS = 60_000;
const DIGITS_OF_TABLE = 6;
const ADDING = ["sum", "count"]; // of an interval that has not ended they say too little
const at = (id) => document.getElementById(id);

export class Explorer {
  #api;
  #choice = read(location.hash);
  #data = [[], []];
  #step = 0;
  #ended = 0;
  #pointed = null;
  #chart;
  #poller;
  #fill;

  constructor(api, failed) {
    this.#api = api;
    this.#offer();
    this.#chart = new TimeChart(at("chart"), { lines: ["main", "unfinished"], told: (marks, step) => marksIn(marks, step, this.#unit), cursor: (index) => this.#read(index) });
    this.#poller = new Poller(() => this.#ask(), () => this.#everyMs(), (error, waitMs) => {
      at("chart-note").textContent = `The points can’t be had: ${error.message}`;
      return failed(error, waitMs);
    });
    this.#fill = whenOpen(at("points"), () => this.#table());
    addEventListener("hashchange", () => this.#choose());
    at("chart").addEventListener("keydown", (event) => this.#onKey(event));
    this.#choose();
  }

  /** Asks now, where a series is chosen. */
  now() {
    return this.#choice.metric ? this.#poller.now() : undefined;
  }

  get chosen() {
    return Boolean(this.#choice.metric);
  }

  #offer() {
    at("ranges").append(...Object.entries(RANGES).map(([range, [text]]) => {
      const input = Object.assign(document.createElement("input"), { type: "radio", name: "range", value: range });
      input.addEventListener("change", () => this.#set({ range }));
      const label = document.createElement("label");
      label.append(input, text);
      return label;
    }));
    at("aggregation").append(...Object.entries(AGGREGATIONS).map(([value, text]) => new Option(text, value)));
    at("aggregation").addEventListener("change", () => this.#set({ aggregation: at("aggregation").value }));
  }

  #set(changed) {
    history.replaceState(null, "", write({ ...this.#choice, ...changed }));
    dispatchEvent(new Event("hashchange"));
  }

  #choose() {
    const chosen = read(location.hash);
    if (!chosen.metric && this.#choice.metric) return; // a fragment that is none of ours
    this.#choice = chosen;
    const { service, metric, range, aggregation } = this.#choice;
    at("chosen").hidden = !metric;
    if (!metric) return;
    const small = document.createElement("small");
    small.append(isolated(service), " / ");
    at("chosen-title").replaceChildren(small, isolated(metric));
    at("ranges").querySelector(`[value="${range}"]`).checked = true;
    at("aggregation").value = aggregation;
    this.#take([[], []], 0);
    at("chart-note").textContent = "Asking …";
    this.#poller.now();
  }

  #everyMs() {
    return Math.min(Math.max(this.#step * 1000, REFRESH_MIN_MS), REFRESH_MAX_MS);
  }

  async #ask() {
    const choice = this.#choice;
    const cannot = unaskable(choice);
    if (cannot) {
      at("chart-note").textContent = cannot;
      return;
    }
    const end = new Date(this.#api.now());
    const start = new Date(end - RANGES[choice.range][1] * 1000);
    const path = `v1/services/${encodeURIComponent(choice.service)}/metrics/${encodeURIComponent(choice.metric)}:query`;
    const answer = await this.#api.call(path, { start: start.toISOString(), end: end.toISOString(), aggregation: choice.aggregation });
    if (choice !== this.#choice) return; // another one is asked for by now
    const adding = ADDING.includes(choice.aggregation);
    const data = dataOf(answer);
    this.#take(adding ? since(data, start / 1000) : data, secondsOf(answer.interval), adding);
    const found = summary(this.#data[1].slice(0, this.#ended)) ?? summary(this.#data[1]);
    at("chart-note").textContent = found
      ? `${AGGREGATIONS[choice.aggregation]} of each ${span(this.#step)}; from ${this.#told(found.least)} to ${this.#told(found.greatest)} within ${RANGES[choice.range][0]}`
      : `Nothing was stored within ${RANGES[choice.range][0]}: choose a longer range.`;
  }

  #take(data, step, adding = false) {
    this.#data = data;
    this.#step = step;
    const now = this.#api.now() / 1000;
    this.#ended = adding ? ended(data[0], step, now) : data[0].length;
    this.#chart.show(drawn(data, this.#ended), [now - RANGES[this.#choice.range][1], now]);
    const pointed = data[0].indexOf(this.#pointed);
    this.#read(pointed < 0 ? null : pointed);
    this.#fill();
  }

  /** Tells the point of this index, or the last one; one that is all there, if any is. */
  #read(index) {
    const [times, values] = this.#data ?? [[], []];
    this.#pointed = index !== null && values[index] != null ? times[index] : null;
    const whole = values.slice(0, this.#ended).findLastIndex((value) => value !== null); // before it may be a gap
    const shown = this.#pointed !== null ? index : whole < 0 ? values.length - 1 : whole;
    at("value").textContent = this.#told(values[shown] ?? null);
    at("value-note").textContent = times.length ? `${this.#when(shown)} ${atDate(times[shown])}` : "";
  }

  #when(shown) {
    if (shown >= this.#ended) return "so far, since";
    return this.#pointed === null ? (this.#ended < this.#data[0].length ? "last whole interval, from" : "last, at") : "at";
  }

  get #unit() {
    return this.#choice.aggregation === "count" ? "" : unitOf(this.#choice.metric);
  }

  #told(value, digits) {
    return toldIn(value, this.#unit, digits);
  }

  #onKey(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const [times, values] = this.#data;
    const pointed = times.indexOf(this.#pointed);
    let index = pointed < 0 ? values.length - 1 : pointed + by;
    while (values[index] === null) index += by; // a gap
    if (index < 0 || index >= values.length) return;
    this.#chart.point(index);
    at("pointed").textContent = `${this.#told(values[index])} ${atDate(times[index])}`; // heard, since a key asked for it
  }

  #table() {
    const [times, values] = this.#data;
    const rows = times.map((t, index) => [index < this.#ended ? atDate(t) : `${atDate(t)}, so far`, values[index]]).filter(([, value]) => value !== null).reverse();
    return table("The points, the newest first", ["Time", AGGREGATIONS[this.#choice.aggregation]], rows.map(([time, value]) => [time, this.#told(value, DIGITS_OF_TABLE)]));
  }
}
