// Which services' metrics are stored, and how many a second.

import { share, told } from "./format.js";
import { heading } from "./tables.js";

const SHOWN_MAX = 12;

/** Shows the rates, the largest first; `started` says whether there are readings to tell them from. */
export function showServices(place, rates, started) {
  if (!rates.length) {
    const text = started ? "No service’s metrics were stored since this gateway’s start." : "…";
    place.replaceChildren(Object.assign(document.createElement("p"), { className: "note", textContent: text }));
    return;
  }
  const all = rates.reduce((sum, { rate }) => sum + rate, 0);
  const rest = rates.slice(SHOWN_MAX);
  const shown = rates.slice(0, SHOWN_MAX).map(({ service, rate }) => [service || "all others", rate]);
  if (rest.length) shown.push([`${rest.length} more`, rest.reduce((sum, { rate }) => sum + rate, 0)]);
  const most = Math.max(...shown.map(([, rate]) => rate));
  const table = place.querySelector("table") ?? begin(place);
  table.tBodies[0].replaceChildren(...shown.map(([name, rate]) => rowOf(name, rate, all ? rate / all : 0, most ? rate / most : 0)));
}

function begin(place) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  const titles = [["Service", ""], ["Rate", "number"], ["", ""], ["Share", "share"]];
  for (const [title, name] of titles) {
    head.append(title ? Object.assign(heading(title, "col"), { className: name }) : document.createElement("td"));
  }
  table.createTBody();
  place.replaceChildren(table);
  return table;
}

function rowOf(name, rate, part, length) {
  const row = document.createElement("tr");
  row.append(Object.assign(heading(name, "row"), { title: name }));
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
