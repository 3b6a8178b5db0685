// The list of the customer's own conversations.
import { byId, clock, el, show } from "./dom.js";
import { language, onLanguage, t } from "./i18n.js";

export class ThreadList {
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.threads = [];
    this.current = null;
    onLanguage(() => this.draw());
  }

  set(threads) {
    this.threads = threads;
    this.draw();
  }

  mark(thread) {
    this.current = thread;
    this.draw();
  }

  draw() {
    const list = byId("threads");
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.thread : null;
    list.replaceChildren(...this.threads.map((thread) => this.item(thread)));
    show(byId("no-threads"), this.threads.length === 0);
    if (focused) list.querySelector(`[data-thread="${CSS.escape(focused)}"]`)?.focus();
  }

  item(thread) {
    const id = thread.thread_id;
    return el(
      "li",
      {},
      el(
        "button",
        {
          type: "button",
          "data-thread": id,
          "aria-current": id === this.current ? "true" : null,
          onclick: () => this.onOpen(id),
        },
        el("span", { class: "name" }, thread.title || t("untitled")),
        el(
          "span",
          { class: "muted" },
          [clock(thread.updated_at, language()), thread.human ? t("withPerson") : ""].filter(Boolean).join(" · "),
        ),
      ),
    );
  }
}
