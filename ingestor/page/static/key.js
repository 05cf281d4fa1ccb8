// Asks the reader for an API key, once for each time that one is needed.

const at = (id) => document.getElementById(id);

export class KeyDialog {
  #api;
  #dialog = at("key");
  #needed = false;

  constructor(api) {
    this.#api = api;
    at("key-open").addEventListener("click", () => this.#open("API key"));
    at("key-close").addEventListener("click", () => this.#dialog.close());
    at("key-forget").addEventListener("click", () => this.#use(""));
    this.#dialog.querySelector("form").addEventListener("submit", () => this.#use(at("key-value").value.trim()));
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
    at("key-forget").hidden = !this.#api.key;
    if (!this.#dialog.open) this.#dialog.showModal();
    at("key-value").focus();
  }

  #use(key) {
    this.#dialog.close();
    this.#needed = false;
    this.#api.key = key;
  }
}
