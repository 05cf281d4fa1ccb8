// How the gateway is, in words: ready, degraded, broken, or not to be reached. Only a change of it is read aloud.

import { atClock, told } from "./format.js";

const at = (id) => document.getElementById(id);
const TOLD = { waiting: "Connecting …", ready: "Ready", degraded: "Degraded", broken: "Not ready", unreachable: "Unreachable", locked: "Key needed" };

export class Status {
  #state = "waiting";
  #goneSince = null;
  #locked = false;

  /** What /readyz says. */
  ready(looked) {
    this.#goneSince = null;
    const bad = Object.entries(looked.checks).filter(([, said]) => said !== "ok");
    if (!bad.length) return this.#locked ? this.#lock() : this.#set("ready");
    const state = looked.status === "degraded" ? "degraded" : "broken";
    const reasons = bad.map(([name, said]) => `${name}: ${said}`).join("; ");
    const kept = state === "degraded" ? ` Metrics are taken and kept: ${told(looked.pending.metrics, "count")} wait, the oldest for ${told(looked.pending.oldest_age_seconds, "seconds")}.` : " Metrics are refused.";
    return this.#set(state, state === "degraded" ? "The gateway keeps what it can’t store." : "The gateway is not ready.", `${reasons}.${kept}`);
  }

  /** It was not reached, and is tried again in so many milliseconds. */
  unreachable(error, againInMs) {
    this.#goneSince ??= Date.now() / 1000;
    this.#set("unreachable", "The gateway can’t be reached", `since ${atClock(this.#goneSince)} (${error.message}). What is shown is from before. It is tried again in ${told(Math.ceil(againInMs / 1000), "seconds")}.`);
  }

  refused(error) {
    this.#set("broken", "The gateway refuses to tell how it is.", error.message);
  }

  /** Something is told only to who has a key. How the gateway is may be worse news. */
  locked() {
    this.#locked = true;
    if (this.#state === "waiting" || this.#state === "ready") this.#lock();
  }

  unlocked() {
    this.#locked = false;
  }

  #lock() {
    this.#set("locked", "A key is needed", "This gateway shows its figures and series to who has a key that may read.");
  }

  #set(state, title = "", text = "") {
    document.body.dataset.state = state;
    at("banner").hidden = !title;
    if (at("banner-title").textContent !== title) at("banner-title").textContent = title;
    if (at("banner-text").textContent !== text) at("banner-text").textContent = text;
    if (state === this.#state) return;
    this.#state = state;
    at("state-text").textContent = TOLD[state];
    at("announced").textContent = `${TOLD[state]}. ${title} ${text}`;
    at("retry").hidden = state === "locked";
    at("key-enter").hidden = state !== "locked";
    document.title = state === "ready" ? "Ingestor" : `${TOLD[state]} · Ingestor`;
  }
}
