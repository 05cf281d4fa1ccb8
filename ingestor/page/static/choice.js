// What is chosen to look at. It lives in the address, so that it can be kept, and sent to somebody else.

export const RANGES = { "15m": ["15 min", 900], "1h": ["1 h", 3600], "6h": ["6 h", 21_600], "24h": ["24 h", 86_400], "7d": ["7 d", 604_800] };
export const AGGREGATIONS = { avg: "average", min: "least", max: "greatest", sum: "sum", count: "count", last: "last", p50: "median", p95: "p95", p99: "p99" };

/** The choice of an address's fragment; what it doesn't say, or says wrong, is the usual. */
export function read(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const [range, aggregation] = [given.get("range"), given.get("aggregation")];
  return {
    service: given.get("service") ?? "",
    metric: given.get("metric") ?? "",
    range: Object.hasOwn(RANGES, range) ? range : "15m",
    aggregation: Object.hasOwn(AGGREGATIONS, aggregation) ? aggregation : "avg",
  };
}

const DOTS = [".", ".."];

/** Why a browser can't ask for this series, or nothing: it takes these names, however written, for steps in a path. */
export function unaskable({ service }) {
  return DOTS.includes(service) ? `A browser can’t ask for a service of the name “${service}”: other clients of the API can.` : "";
}

export function write(choice) {
  return `#${new URLSearchParams(choice)}`;
}

/** What the search says: the beginnings of a service's and of a metric's name. */
export function prefixes(text) {
  const [service, ...metric] = text.split("/");
  return { service_prefix: service.trim(), metric_prefix: metric.join("/").trim() };
}
