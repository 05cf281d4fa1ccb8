// Asks the reader for an API key, once for each time that one is needed.

import { sendable } from "./api.js";

const at = (id) => document.getElementById(id);

export class KeyDialog {
  #api;
  #dialog = at("key");
  #needed = false;

  constructor(api) {
    this.#api = api;
    for (const id of ["key-open", "key-enter"]) at(id).addEventListener("click", () => this.#open("API key"));
    at("key-close").addEventListener("click", () => this.#dialog.close());
    at("key-forget").addEventListener("click", () => this.#use(""));
    this.#dialog.querySelector("form").addEventListener("submit", (event) => this.#submit(event));
  }

  /** Somebody asked and was refused for want of a key that is known. */
  needed() {
    if (this.#needed) return;
    this.#needed = true;
    this.#open(this.#api.key ? "This key is not known here" : "An API key is needed");
  }

  #open(title) {
    at("key-title").textContent = title;
    at("key-value").value = "";
    at("key-wrong").hidden = true;
    at("key-forget").hidden = !this.#api.key;
    if (!this.#dialog.open) this.#dialog.showModal();
    at("key-value").focus();
  }

  #submit(event) {
    const key = at("key-value").value.trim();
    if (sendable(key)) return this.#use(key);
    event.preventDefault();
    at("key-wrong").hidden = false;
    at("key-value").focus();
  }

  #use(key) {
    this.#dialog.close();
    this.#needed = false;
    this.#api.key = key;
  }
}
