// Which services' metrics are stored, and how many a second.

import { share, told } from "./format.js";
import { heading, isolated } from "./tables.js";

const SHOWN_MAX = 12;

/** Shows the rates, the largest first; `started` says whether there are readings to tell them from. */
export function showServices(place, rates, started) {
  const sending = rates.filter(({ rate }) => rate > 0);
  const silent = rates.length - sending.length;
  if (!sending.length) place.replaceChildren(note(started ? "" : "\u2026"));
  else {
    if (!place.querySelector("table")) place.replaceChildren(begin(), note(""));
    place.querySelector("tbody").replaceChildren(...rowsOf(sending));
  }
  if (started) place.querySelector(".note").textContent = silence(sending.length, silent);
}

function silence(sending, silent) {
  if (!sending && !silent) return "No service’s metrics were stored since this gateway’s start.";
  if (!silent) return "";
  return silent === 1 ? "1 service that sent before is silent now." : `${silent} services that sent before are silent now.`;
}

function note(textContent) {
  return Object.assign(document.createElement("p"), { className: "note", textContent });
}

function rowsOf(sending) {
  const all = sending.reduce((sum, { rate }) => sum + rate, 0);
  const rest = sending.slice(SHOWN_MAX);
  const shown = sending.slice(0, SHOWN_MAX).map(({ service, rate }) => [service || "all others", rate]);
  if (rest.length) shown.push([`${rest.length} more`, rest.reduce((sum, { rate }) => sum + rate, 0)]);
  const most = Math.max(...shown.map(([, rate]) => rate));
  return shown.map(([name, rate]) => rowOf(name, rate, rate / all, rate / most));
}

function begin() {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  const titles = [["Service", ""], ["Rate", "number"], ["", ""], ["Share", "share"]];
  for (const [title, name] of titles) {
    head.append(title ? Object.assign(heading(title, "col"), { className: name }) : document.createElement("td"));
  }
  table.createTBody();
  return table;
}

function rowOf(name, rate, part, length) {
  const row = document.createElement("tr");
  const head = Object.assign(heading("", "row"), { title: name });
  head.append(isolated(name));
  row.append(head);
  row.append(Object.assign(document.createElement("td"), { className: "number", textContent: told(rate, "rate") }));
  const bar = Object.assign(document.createElement("span"), { className: "bar" });
  bar.append(document.createElement("i"));
  bar.firstChild.style.width = `${length * 100}%`;
  bar.setAttribute("aria-hidden", "true");
  const cell = document.createElement("td");
  cell.append(bar);
  row.append(cell, Object.assign(document.createElement("td"), { className: "share", textContent: share(part) }));
  return row;
}
