// The operator's page: who waits for a person, the conversation so far, reply, hand back.
import { Api } from "./api.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { messagesOf } from "./conversation.js";
import { byId, clock, el, show } from "./dom.js";
import { bindLanguageButtons, language, named, onLanguage, startLanguage, t } from "./i18n.js";
import { askToken, demo, keptToken } from "./session.js";
import { Draft } from "./storage.js";
import { Transcript } from "./transcript.js";

const POLL = 3000;

startLanguage();
bindLanguageButtons(document.querySelectorAll(".switch button"));

const field = byId("reply");
const draft = new Draft(field, "operator");
const transcript = new Transcript(byId("messages"), byId("ticket"), {});
const connection = new Connection(new Api(), { onBack: () => poll() });
let api = null;
let queue = [];
let current = null; // the ticket that is open
let drawn = "";

const announce = (text) => (byId("live").textContent = text);

function notice(text) {
  byId("notice").textContent = text;
  show(byId("notice"), Boolean(text));
}

function drawQueue() {
  const list = byId("queue");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.thread : null;
  list.replaceChildren(...queue.map(ticketItem));
  if (focused) list.querySelector(`[data-thread="${CSS.escape(focused)}"]`)?.focus();
  const text = queue.length ? t("queueCount", { n: queue.length }) : t("queueEmpty");
  if (byId("queue-count").textContent !== text) byId("queue-count").textContent = text;
}

function ticketItem(ticket) {
  const since = t("since", { time: clock(ticket.created_at, language()) });
  return el(
    "li",
    {},
    el(
      "button",
      {
        type: "button",
        "data-thread": ticket.thread_id,
        onclick: () => open(ticket),
        "aria-current": ticket.thread_id === current?.thread_id ? "true" : null,
      },
      el("span", { class: "name" }, ticket.name || ticket.customer_id),
      el("span", { class: "summary" }, ticket.summary ?? ""),
      el("span", { class: "muted" }, [named("ticket", ticket.status), since].join(" · ")),
    ),
  );
}

function drawHead(snapshot) {
  const slots = Object.entries(snapshot.slots ?? {}).filter(([, value]) => value);
  const value = (name, text) => (name === "reason" ? named("reason", text) : String(text));
  byId("ticket-head").replaceChildren(
    el("h2", {}, current.name || current.customer_id, " ", el("span", { class: "muted" }, current.customer_id)),
    el("p", {}, t("ticket", { id: current.ticket_id }), current.summary ? ` · ${current.summary}` : ""),
    ...(slots.length
      ? [
          el("p", { class: "label" }, t("remembered")),
          el(
            "dl",
            {},
            slots.map(([name, text]) => [el("dt", {}, named("slot", name)), el("dd", {}, value(name, text))]),
          ),
        ]
      : []),
  );
}

function close() {
  current = null;
  drawn = "";
  transcript.set([]);
  show(byId("ticket-head"), false);
  show(byId("answering"), false);
  show(byId("choose"), true);
  drawQueue();
}

async function open(ticket) {
  current = ticket;
  drawn = "";
  notice("");
  draft.open(ticket.thread_id);
  show(byId("choose"), false);
  show(byId("answering"), true);
  drawQueue();
  await loadThread();
  field.focus();
}

/** Draw the open conversation when it changed. */
async function loadThread() {
  if (!current) return;
  const ticket = current;
  const snapshot = await api.thread(ticket.thread_id);
  const signature = JSON.stringify([snapshot.messages, snapshot.slots, language()]);
  if (ticket !== current || signature === drawn) return;
  const before = transcript.messages.length;
  drawn = signature;
  drawHead(snapshot);
  show(byId("ticket-head"), true);
  transcript.set(
    messagesOf({ ...snapshot, proposal: null, run: null }, new Map()).map((message) => ({ ...message, runId: null })),
  );
  const last = transcript.messages.at(-1);
  if (before && last?.role === "customer") announce(last.text);
}

/** One call that may fail: what goes wrong is said, and what was typed stays. */
async function attempt(action) {
  try {
    notice("");
    await action();
    return true;
  } catch (error) {
    if (error.status === 0) {
      connection.lost();
      notice(t("notSent"));
    } else notice([error.message, error.tryNext].filter(Boolean).join(". "));
    return false;
  }
}

new Composer(byId("composer"), field, {
  onSend: (text) =>
    attempt(async () => {
      await api.operatorReply(current.thread_id, text);
      draft.sent(text);
      announce(t("replied"));
      await loadThread();
    }),
});
byId("release").addEventListener("click", () =>
  attempt(async () => {
    await api.release(current.thread_id);
    announce(t("released"));
    close();
    await poll();
    (byId("queue").querySelector("button") ?? byId("ticket")).focus();
  }),
);

async function poll() {
  if (!api) return;
  const before = queue.length;
  queue = await api.queue();
  connection.set("open");
  drawQueue();
  if (queue.length > before) announce(t("newInQueue", { n: queue.length }));
  await loadThread();
}

async function start() {
  const found = await demo();
  const token =
    found?.operator ?? keptToken("operator") ?? (await askToken(byId("sign-in"), "operator", (one) => one.queue()));
  api = new Api(token);
}

onLanguage(() => {
  drawQueue();
  loadThread().catch(() => {});
  transcript.redraw();
});
connection.watch();
for (;;) {
  try {
    if (!api) await start();
    if (!document.hidden) await poll();
  } catch (error) {
    if (error.status === 0) connection.lost();
    else notice(error.message);
  }
  await new Promise((resolve) => setTimeout(resolve, POLL));
}
