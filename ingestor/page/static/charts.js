// A chart over time, drawn by uPlot in the page's colours; it follows the room that it has.

/* global uPlot */
const AFTER = 0.012; // of the time shown, so that a dot at its end is whole
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const AXIS_MIN_PX = 62;
/** How each kind of line is drawn. What is `beneath` another is wide and pale, so that both show where they are equal. */
const LINES = {
  main: { colour: "--first", width: 1.6, filled: true },
  other: { colour: "--second", width: 1.6 },
  beneath: { colour: "--second", width: 5, alpha: 0.6 },
  unfinished: { colour: "--first", width: 1.6, dash: [4, 4] },
};

export class TimeChart {
  #place;
  #options;
  #plot = null;
  #data = [[]];
  #range = null;

  /** `lines` name the kind of each; `told(marks, step)` labels the y axis (none without); `sync` names charts that share a
      cursor; `cursor(index)` hears where it stands, or null. `zero`: the axis begins at nothing. */
  constructor(place, options) {
    this.#place = place;
    this.#options = options;
    new ResizeObserver(() => this.#fit()).observe(place);
    document.addEventListener("theme", () => this.#make());
    this.#make();
  }

  /** `data` as uPlot has it: times, then a list of values for each line; `range` in seconds. */
  show(data, range) {
    this.#data = data;
    this.#range = range;
    this.#plot.setData(data, false);
    this.#scale();
  }

  /** Moves the cursor to the point of this index. */
  point(index) {
    const x = this.#data[0][index];
    if (x === undefined) return;
    this.#plot.setCursor({ left: this.#plot.valToPos(x, "x"), top: 1 });
  }

  #scale() {
    const [from, to] = this.#range ?? [Date.now() / 1000 - 300, Date.now() / 1000];
    this.#plot.setScale("x", { min: from, max: to + (to - from) * AFTER });
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.#place;
    if (width && height && this.#plot) this.#plot.setSize({ width, height });
  }

  #make() {
    this.#plot?.destroy();
    const { told, lines, sync, cursor, zero } = this.#options;
    const grid = { stroke: css("--grid"), width: 1 };
    const axis = { stroke: css("--muted"), font: "12px system-ui, sans-serif", grid, ticks: { show: false } };
    this.#plot = new uPlot({
      width: this.#place.clientWidth || 300,
      height: this.#place.clientHeight || 70,
      padding: told ? [8, 28, 0, 0] : [3, 2, 3, 2],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, sync: sync ? { key: sync } : undefined, points: { size: 7 } },
      scales: { x: { time: true }, y: { range: zero ? fromZero : around } },
      axes: told
        ? [{ ...axis, size: 30, space: 80, grid: { show: false }, values: clockOf }, { ...axis, size: roomOf, space: 40, values: (_, marks, __, ___, step) => told(marks, step) }]
        : [{ show: false }, { show: false }],
      series: [{}, ...lines.map(lineOf)],
      hooks: { setCursor: [(plot) => cursor?.(plot.cursor.left >= 0 ? plot.cursor.idx : null)] },
    }, this.#data, this.#place);
    this.#scale();
  }
}

/** What the longest label takes, and no less than usual, so that charts lie below each other. */
function roomOf(plot, labels, index, cycle) {
  const axis = plot.axes[index];
  if (cycle > 1) return axis._size; // else uPlot may go on for ever
  plot.ctx.font = axis.font[0];
  const widest = Math.max(0, ...(labels ?? []).map((label) => plot.ctx.measureText(label).width / devicePixelRatio));
  return Math.max(AXIS_MIN_PX, Math.ceil(widest + axis.gap + axis.ticks.size));
}

function lineOf(kind) {
  const { colour, filled, ...how } = LINES[kind];
  const stroke = css(colour);
  const alone = (plot, line) => {
    const values = plot.data[line];
    return values.flatMap((value, at) => (value != null && values[at - 1] == null && values[at + 1] == null ? [at] : []));
  };
  return { ...how, stroke, fill: filled ? css("--soft") : undefined,
    points: { show: true, filter: alone, size: 5, fill: stroke, width: 0 } };
}

function fromZero(_, __, max) {
  return [0, max > 0 ? max * 1.12 : 1];
}

function around(_, min, max) {
  if (min === null || max === null) return [0, 1];
  const room = (max - min || Math.abs(max) || 1) * 0.1;
  return [min >= 0 && min < room * 4 ? 0 : min - room, max + room];
}

const MINUTE_S = 60;
const second = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

/** Midnight as its day, other moments as the clock has them: in local time. */
function clockOf(_, marks, __, ___, step) {
  const fine = step < MINUTE_S ? second : minute;
  return marks.map((seconds) => {
    const at = new Date(seconds * 1000);
    return at.getHours() || at.getMinutes() || at.getSeconds() ? fine.format(at) : day.format(at);
  });
}
