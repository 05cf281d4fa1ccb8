// The list of series, searched by the beginnings of their names, page by page.

import { prefixes, read, write } from "./choice.js";
import { Poller } from "./poller.js";
import { isolated } from "./tables.js";

const PAGE = 100;
const SETTLE_MS = 200;
const EVERY_MS = 30_000;
const EMPTY_EVERY_MS = 3_000;

export class Finder {
  #api;
  #search = document.getElementById("search");
  #list = document.getElementById("list");
  #more = document.getElementById("more");
  #state = document.getElementById("list-state");
  #series = [];
  #next = "";
  #pages = 1;
  #asked = null;
  #found;
  #poller;

  /** `found(series, searched)` hears what is listed; `failed` as of a Poller. */
  constructor(api, found, failed) {
    this.#api = api;
    this.#found = found;
    this.#poller = new Poller(() => this.#ask(), () => (this.#series.length ? EVERY_MS : EMPTY_EVERY_MS), (error, waitMs) => {
      this.#state.textContent = `The list can’t be had: ${error.message}`;
      return failed(error, waitMs);
    });
    let settled = 0;
    this.#search.addEventListener("input", () => {
      clearTimeout(settled);
      settled = setTimeout(() => this.#restart(), SETTLE_MS);
    });
    this.#more.addEventListener("click", () => this.#turn());
    this.#list.addEventListener("click", (event) => {
      if (event.target.closest("a")) setTimeout(reveal); // once the address is the link's
    });
    addEventListener("hashchange", () => this.#mark());
  }

  now() {
    return this.#poller.now();
  }

  #restart() {
    this.#pages = 1;
    return this.now();
  }

  #turn() {
    const last = this.#list.lastElementChild;
    this.#pages += 1;
    this.now().then(() => last?.nextElementSibling?.querySelector("a").focus());
  }

  async #ask() {
    const search = this.#search.value;
    const series = [];
    let token = "";
    for (let page = 0; page < this.#pages; page += 1) {
      const answer = await this.#api.call("v1/series", { ...prefixes(search), page_size: PAGE, page_token: token });
      series.push(...answer.series);
      token = answer.nextPageToken;
      if (!token) break;
    }
    if (search !== this.#search.value) return; // another question by now, which is asked next
    this.#next = token;
    this.#draw(series, search);
    this.#found(series, search.trim());
  }

  #draw(series, search) {
    const names = JSON.stringify(series.map((each) => [each.serviceName, each.metricName]));
    this.#series = series;
    this.#more.hidden = !this.#next;
    const count = `${series.length}${this.#next ? "+" : ""}`;
    const said = series.length ? `${count} series` : search ? "No series begins like this." : "No series yet.";
    if (this.#state.textContent !== said) this.#state.textContent = said; // it is read aloud
    if (names === this.#asked) return;
    this.#asked = names;
    this.#list.replaceChildren(...series.map(itemOf));
    this.#mark();
  }

  #mark() {
    const chosen = read(location.hash);
    for (const link of this.#list.querySelectorAll("a")) {
      const is = link.dataset.service === chosen.service && link.dataset.metric === chosen.metric;
      if (is) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      link.href = write({ ...chosen, service: link.dataset.service, metric: link.dataset.metric });
    }
  }
}

/** Where the chart lies below the list, on phones, it is brought into sight. */
function reveal() {
  if (!matchMedia("(max-width: 60rem)").matches) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  document.getElementById("chosen").scrollIntoView({ behavior: still ? "instant" : "smooth" });
}

function itemOf({ serviceName, metricName }) {
  const link = document.createElement("a");
  Object.assign(link.dataset, { service: serviceName, metric: metricName });
  const service = document.createElement("small");
  service.append(isolated(serviceName));
  link.append(service, isolated(metricName));
  const item = document.createElement("li");
  item.append(link);
  return item;
}
