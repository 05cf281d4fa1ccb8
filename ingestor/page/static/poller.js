// Asks again and again: never twice at once, rarely while it fails, and not while nobody looks.

const WAIT_MAX_MS = 10_000;

/** How long to wait after so many failures: twice as long each time, with up to a fifth of chance. */
export function delayMs(everyMs, failures, chance) {
  return Math.min(everyMs * 2 ** failures, WAIT_MAX_MS) * (failures ? 1 + chance / 5 : 1);
}

export class Poller {
  #ask;
  #everyMs;
  #failed;
  #timer = 0;
  #asking = false;
  #again = false;
  #failures = 0;

  /** `ask` is awaited; `failed(error, againInMs)` hears why it failed, and may answer true: then no more is asked
      until `now` is called. `everyMs` may be a function. */
  constructor(ask, everyMs, failed) {
    this.#ask = ask;
    this.#everyMs = typeof everyMs === "function" ? everyMs : () => everyMs;
    this.#failed = failed;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) clearTimeout(this.#timer);
      else this.now();
    });
  }

  /** Asks at once; when it is being asked already, once more afterwards. */
  async now() {
    clearTimeout(this.#timer);
    if (this.#asking) {
      this.#again = true;
      return;
    }
    this.#asking = true;
    let stop = false;
    let waitMs;
    try {
      await this.#ask();
      this.#failures = 0;
      waitMs = delayMs(this.#everyMs(), 0, 0);
    } catch (error) {
      this.#failures += 1;
      waitMs = delayMs(this.#everyMs(), this.#failures, Math.random());
      stop = this.#failed(error, waitMs) === true;
    }
    this.#asking = false;
    if (this.#again) {
      this.#again = false;
      waitMs = 0;
    } else if (stop) return;
    if (!document.hidden) this.#timer = setTimeout(() => this.now(), waitMs);
  }
}
