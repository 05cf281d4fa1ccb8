// One series over time: range, aggregation, and its chart, which is asked for again as long as somebody looks.

import { TimeChart } from "./charts.js";
import { AGGREGATIONS, RANGES, read, write } from "./choice.js";
import { atDate, toldIn, unitOf } from "./format.js";
import { dataOf, secondsOf, summary } from "./points.js";
import { Poller } from "./poller.js";
import { table, whenOpen } from "./tables.js";

const REFRESH_MIN_MS = 2_000;
const REFRESH_MAX_MS = 60_000;
const at = (id) => document.getElementById(id);

export class Explorer {
  #api;
  #choice = read(location.hash);
  #data = [[], []];
  #step = 0;
  #pointed = null;
  #chart;
  #poller;
  #fill;

  constructor(api, failed) {
    this.#api = api;
    this.#offer();
    this.#chart = new TimeChart(at("chart"), { lines: ["value"], told: (value) => this.#told(value), cursor: (index) => this.#read(index) });
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
    this.#choice = read(location.hash);
    const { service, metric, range, aggregation } = this.#choice;
    at("chosen").hidden = !metric;
    if (!metric) return;
    at("chosen-title").replaceChildren(Object.assign(document.createElement("small"), { textContent: `${service} / ` }), metric);
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
    const end = new Date();
    const start = new Date(end - RANGES[choice.range][1] * 1000);
    const path = `v1/services/${encodeURIComponent(choice.service)}/metrics/${encodeURIComponent(choice.metric)}:query`;
    const answer = await this.#api.call(path, { start: start.toISOString(), end: end.toISOString(), aggregation: choice.aggregation });
    if (choice !== this.#choice) return; // another one is asked for by now
    this.#take(dataOf(answer), secondsOf(answer.interval));
    const found = summary(this.#data[1]);
    at("chart-note").textContent = found
      ? `${AGGREGATIONS[choice.aggregation]} of each ${this.#step} s; from ${this.#told(found.least)} to ${this.#told(found.greatest)} within ${RANGES[choice.range][0]}`
      : `Nothing was stored within ${RANGES[choice.range][0]}: choose a longer range.`;
  }

  #take(data, step) {
    this.#data = data;
    this.#step = step;
    const now = Date.now() / 1000;
    this.#chart.show(data, [now - RANGES[this.#choice.range][1], now]);
    const pointed = data[0].indexOf(this.#pointed);
    this.#read(pointed < 0 ? null : pointed);
    this.#fill();
  }

  /** Tells the point of this index, or the last one. */
  #read(index) {
    const [times, values] = this.#data ?? [[], []];
    this.#pointed = index !== null && values[index] != null ? times[index] : null;
    const shown = this.#pointed === null ? values.length - 1 : index;
    at("value").textContent = this.#told(values[shown] ?? null);
    at("value-note").textContent = times.length ? `${this.#pointed === null ? "last, at" : "at"} ${atDate(times[shown])}` : "";
  }

  #told(value) {
    return toldIn(value, this.#choice.aggregation === "count" ? "" : unitOf(this.#choice.metric));
  }

  #onKey(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const [times, values] = this.#data;
    const pointed = times.indexOf(this.#pointed);
    let index = pointed < 0 ? values.length - 1 : pointed + by;
    while (values[index] === null) index += by; // a gap
    if (index >= 0 && index < values.length) this.#chart.point(index);
  }

  #table() {
    const [times, values] = this.#data;
    const rows = times.map((t, index) => [atDate(t), values[index]]).filter(([, value]) => value !== null).reverse();
    return table("The points, the newest first", ["Time", AGGREGATIONS[this.#choice.aggregation]], rows.map(([time, value]) => [time, this.#told(value)]));
  }
}
