// Is the service there? Asks /health now and then, says so, and tells when it is back.
import { byId } from "./dom.js";
import { onLanguage, t } from "./i18n.js";
import { backoff, pause } from "./stream.js";

const CALM = 15000;

export class Connection {
  /** `onHealth(answer)` hears every good answer; `onBack()` when the service was gone and came back. */
  constructor(api, { onHealth = () => {}, onBack = () => {} } = {}) {
    Object.assign(this, { api, onHealth, onBack });
    this.state = "connecting";
    this.attempt = 0;
    this.waiting = new Set();
    onLanguage(() => this.draw());
    this.draw();
  }

  /** "connecting", "open" or "waiting" (attempt n). A stream reports here too. */
  set(state, attempt = 0) {
    const back = state === "open" && this.state === "waiting";
    if (state === this.state && attempt === this.attempt) return;
    Object.assign(this, { state, attempt });
    this.draw();
    if (state === "open") {
      this.waiting.forEach((resolve) => resolve());
      this.waiting.clear();
    }
    if (back) this.onBack();
  }

  draw() {
    const node = byId("connection");
    const text = {
      connecting: () => t("connecting"),
      open: () => t("connected"),
      waiting: () => (this.attempt > 1 ? t("reconnectingTry", { attempt: this.attempt }) : t("reconnecting")),
    }[this.state]();
    node.dataset.state = this.state;
    if (node.textContent !== text) node.textContent = text;
  }

  /** Resolves when the service answers again, or when `signal` is aborted. */
  reachable(signal) {
    if (this.state === "open") return Promise.resolve();
    return new Promise((resolve) => {
      this.waiting.add(resolve);
      signal?.addEventListener("abort", resolve, { once: true });
    });
  }

  /** A call failed: look at once, and again until the service is there. */
  lost() {
    this.set("waiting", 1);
    this.wake?.abort();
  }

  /** Ask for ever: calmly while all is well, with backoff while it is not; not at all in a hidden tab. */
  async watch() {
    for (let attempt = 0; ;) {
      if (!document.hidden) {
        try {
          const health = await this.api.health();
          attempt = 0;
          this.set("open");
          this.onHealth(health);
        } catch {
          attempt += 1;
          this.set("waiting", attempt);
        }
      }
      this.wake = new AbortController();
      await pause(attempt ? backoff(attempt) : CALM, this.wake.signal);
    }
  }
}
