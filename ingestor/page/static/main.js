// Wires the page: who asks what, and who shows it. What this page needs it has from the public API alone.

import { Api, KeyNeeded, Refused, Unreachable } from "./api.js";
import { Explorer } from "./explorer.js";
import { Finder } from "./finder.js";
import { KeyDialog } from "./key.js";
import { Overview } from "./overview.js";
import { Poller } from "./poller.js";
import { parse } from "./prometheus.js";
import { write, read } from "./choice.js";
import { Samples } from "./samples.js";
import { showServices } from "./services.js";
import { Status } from "./status.js";

const EVERY_MS = 2_000;
const at = (id) => document.getElementById(id);

const api = new Api();
const status = new Status();
const keys = new KeyDialog(api);
const samples = new Samples();
const overview = new Overview(samples);

/** Tells why something could not be asked; true when asking again is of no use until there is another key. */
function failed(error) {
  if (!(error instanceof KeyNeeded)) return false;
  status.locked();
  keys.needed();
  return true;
}

const metrics = new Poller(async () => {
  const text = await api.text("metrics");
  samples.add(Date.now() / 1000, parse(text));
  overview.refresh();
  showServices(at("services"), samples.services, samples.list.length > 0);
}, EVERY_MS, (error) => {
  if (error instanceof KeyNeeded) at("when").textContent = "the figures are shown to who has a key";
  if (error instanceof Refused) at("when").textContent = `the figures can’t be had: ${error.message}`;
  return failed(error);
});

const health = new Poller(async () => {
  status.ready(JSON.parse(await api.text("readyz", [503])));
}, EVERY_MS, (error, waitMs) => {
  if (error instanceof Unreachable) status.unreachable(error, waitMs);
  else if (!(error instanceof KeyNeeded)) status.refused(error);
  return failed(error);
});

const explorer = new Explorer(api, failed);
const finder = new Finder(api, (series, searched) => {
  const nothing = !series.length && !searched;
  at("empty").hidden = !nothing || explorer.chosen;
  if (nothing) offerFirst();
  else if (series.length && !explorer.chosen) {
    const { serviceName: service, metricName: metric } = series[0];
    history.replaceState(null, "", write({ ...read(location.hash), service, metric }));
    dispatchEvent(new Event("hashchange"));
  }
}, failed);

function offerFirst() {
  const key = api.key ? ` -H "authorization: Bearer $INGESTOR_KEY"` : "";
  const body = '{"serviceName":"checkout","metricName":"latency_ms","value":12.5}';
  at("curl").textContent = `curl${key} -d '${body}' \\\n  ${new URL("v1/metrics", location.href)}`;
}

async function copy() {
  try {
    await navigator.clipboard.writeText(at("curl").textContent);
    at("copied").textContent = "Copied.";
  } catch {
    at("copied").textContent = "The browser does not let this page copy: mark the line and copy it.";
  }
}

function everyone() {
  return Promise.all([metrics.now(), health.now(), finder.now(), explorer.now()]);
}

at("copy").addEventListener("click", copy);
at("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address keeps what is chosen
  at("series").focus();
});
at("retry").addEventListener("click", everyone);
api.whenKeyChanges(() => {
  status.unlocked();
  everyone();
});
metrics.now();
health.now();
finder.now();
