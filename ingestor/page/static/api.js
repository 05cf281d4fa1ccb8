// Asks the server. What it refuses is told by kind: unreachable, a key is needed, or refused with a reason.

const KEPT = "ingestor-key";
const PATIENCE_MS = 10_000;
const CLOCK_MS = 2_500; // what a second's resolution and the way here may differ by

/** Whether this may be a key at all: a browser sends no other characters. */
export const sendable = (key) => /^[\x21-\x7e]+$/.test(key);

export class Unreachable extends Error {}
export class KeyNeeded extends Error {}
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** One server, asked with the key that is kept for this tab. `told` hears of each change of the key. */
export class Api {
  #key = kept();
  #told = [];
  #aheadMs = 0;

  get key() {
    return this.#key;
  }

  set key(key) {
    this.#key = key;
    try {
      if (key) sessionStorage.setItem(KEPT, key);
      else sessionStorage.removeItem(KEPT);
    } catch { /* for this page alone, then */ }
    for (const each of this.#told) each();
  }

  /** The server's time in ms, as far as its answers tell: clocks of browsers may be anywhere. */
  now() {
    return Date.now() + this.#aheadMs;
  }

  whenKeyChanges(told) {
    this.#told.push(told);
  }

  /** The text of a page, such as `metrics`. Of `also`, statuses are no failures. */
  async text(path, also = []) {
    const response = await this.#fetch(path);
    if (!response.ok && !also.includes(response.status)) await refuse(response);
    return await whole(response.text());
  }

  /** The JSON that a call is answered with; parameters that are empty are left out. */
  async call(path, parameters = {}) {
    const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
    const query = new URLSearchParams(given).toString();
    const response = await this.#fetch(query ? `${path}?${query}` : path);
    if (!response.ok) await refuse(response);
    return await whole(response.json());
  }

  async #fetch(path) {
    const headers = this.#key ? { authorization: `Bearer ${this.#key}` } : {};
    const response = await whole(fetch(path, { headers, cache: "no-cache", signal: AbortSignal.timeout(PATIENCE_MS) }));
    const aheadMs = Date.parse(response.headers.get("date")) - Date.now();
    this.#aheadMs = Math.abs(aheadMs) > CLOCK_MS ? aheadMs : 0;
    return response;
  }
}

async function whole(answer) {
  try {
    return await answer;
  } catch (error) {
    throw new Unreachable(error.name === "TimeoutError" ? "it does not answer in time" : "no connection");
  }
}

async function refuse(response) {
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).message ?? message;
  } catch { /* not one of the server's own answers */ }
  if (response.status === 401) throw new KeyNeeded(message);
  throw new Refused(message, response.status);
}

function kept() {
  try {
    const key = sessionStorage.getItem(KEPT) ?? "";
    return sendable(key) ? key : "";
  } catch {
    return "";
  }
}
