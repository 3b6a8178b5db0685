// The customer's page: puts chat, list of conversations and panel together.
import { Api } from "./api.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { byId, el, perFrame, show } from "./dom.js";
import { Drawers } from "./drawer.js";
import { bindLanguageButtons, language, onLanguage, startLanguage, t } from "./i18n.js";
import { Panel } from "./panel.js";
import { askToken, choose, demo, keptToken, rememberCustomer } from "./session.js";
import { Draft, lastThread } from "./storage.js";
import { ThreadList } from "./threads.js";
import { Transcript } from "./transcript.js";

startLanguage();
bindLanguageButtons(document.querySelectorAll(".switch button"));
new Drawers([
  { drawer: byId("rail"), opener: byId("open-rail"), narrow: "(max-width: 1099px)" },
  { drawer: byId("panel"), opener: byId("open-panel"), narrow: "(max-width: 799px)" },
]);

const field = byId("message");
let conversation = null;
const draft = new Draft(field);
let human = null;
let notice = null;

const panel = new Panel((by) => conversation?.step(by));
const threads = new ThreadList((id) => openThread(id));
const transcript = new Transcript(byId("messages"), byId("scroller"), {
  decide: (proposal, approve) => conversation.decide(proposal, approve),
  rate: (message, score, comment) => conversation.rate(message, score, comment),
  select: (message) => {
    conversation.select(message);
    if (byId("open-panel").offsetParent) byId("open-panel").click();
  },
  retry: (message) => conversation.send(message.sent),
});
const connection = new Connection(new Api(), {
  onHealth: (health) => panel.setHealth(health),
  onBack: () => conversation?.refresh().catch(() => {}),
});

/** What a conversation tells the page. */
const drawPanel = perFrame(() => panel.show(...shownRun));
let shownRun = [null];
const view = {
  busy(busy) {
    const stopWasFocused = document.activeElement === byId("stop");
    show(byId("send"), !busy);
    show(byId("stop"), busy);
    byId("stop").disabled = false;
    byId("stop-text").textContent = t("stop");
    if (stopWasFocused && !busy) field.focus();
    drawWelcome();
  },
  stopping() {
    byId("stop").disabled = true;
    byId("stop-text").textContent = t("stopping");
    field.focus();
  },
  human(state) {
    if (human && !state) view.announce("humanBack");
    human = state;
    drawHuman();
  },
  notice(key, values = {}, text = "") {
    notice = key ? { key, values } : null;
    byId("notice").textContent = key ? t(key, values) : text;
    show(byId("notice"), Boolean(key || text));
  },
  announce(key, values = {}) {
    byId("live").textContent = t(key, values);
  },
  panel(...shown) {
    shownRun = shown;
    drawPanel();
  },
  typed: (text) => field.value.trim() === text,
  sent: (text) => draft.sent(text),
  named(thread) {
    draft.rename(thread);
    threads.mark(thread);
  },
  lostThread() {
    draft.rename("new");
    threads.mark(null);
  },
  changed: () => loadThreads(),
};

function drawWelcome() {
  show(byId("welcome"), transcript.messages.length === 0 && !conversation?.busy);
}

function drawHuman() {
  const text = !human ? "" : human.active ? t("humanHere") : t(human.position ? "humanWaiting" : "humanAsked", human);
  if (byId("human").textContent !== text) byId("human").textContent = text;
  show(byId("human"), Boolean(text));
}

async function loadThreads() {
  try {
    threads.set(await conversation.api.threads());
  } catch {
    // The list is a convenience; the connection's sign says what is wrong.
  }
}

async function openThread(id) {
  view.notice(null);
  draft.open(id ?? "new");
  threads.mark(id);
  try {
    await conversation.open(id);
  } catch (error) {
    await conversation.refused(error);
  }
  drawWelcome();
}

/** Speak as this customer from now on. */
async function become(customer) {
  conversation?.leave();
  rememberCustomer(customer);
  connection.api = new Api();
  conversation = new Conversation(new Api(customer.token), customer, transcript, connection, view);
  draft.scope = customer.customer_id;
  threads.set([]);
  await Promise.all([loadThreads(), openThread(lastThread(customer.customer_id))]);
}

async function loadGraph() {
  panel.setGraph(await conversation.api.graph());
  panel.redraw();
}

async function start() {
  const found = await demo();
  if (!found) {
    show(byId("who"), false);
    const token = keptToken("customer") ?? (await askToken(byId("sign-in"), "customer", (api) => api.threads()));
    await become({ customer_id: token.split(".")[0], token });
  } else {
    const chosen = choose(found.customers, language());
    byId("customer").replaceChildren(
      ...found.customers.map((customer) =>
        el(
          "option",
          { value: customer.customer_id, selected: customer === chosen },
          `${customer.name} (${customer.customer_id})`,
        ),
      ),
    );
    byId("customer").addEventListener("change", (event) => {
      become(found.customers.find((customer) => customer.customer_id === event.target.value));
    });
    await become(chosen);
  }
  await loadGraph();
}

/** The service may be starting: wait for it, then begin. */
async function begin() {
  for (;;) {
    try {
      return await start();
    } catch (error) {
      if (error.status !== 0 && error.status < 500) return view.notice(null, {}, error.message);
      connection.lost();
      await connection.reachable();
    }
  }
}

new Composer(byId("composer"), field, {
  onSend: (text) => conversation?.send(text),
  onEscape: () => conversation?.stop(),
});
byId("stop").addEventListener("click", () => conversation?.stop());
byId("new").addEventListener("click", async () => {
  await openThread(null);
  if (!matchMedia("(max-width: 1099px)").matches) field.focus();
  else byId("rail").querySelector(".drawer-close").click();
});
byId("threads").addEventListener("click", () => {
  if (matchMedia("(max-width: 1099px)").matches) byId("rail").querySelector(".drawer-close").click();
});
for (const example of document.querySelectorAll(".examples button")) {
  example.addEventListener("click", () => {
    field.focus();
    conversation?.send(example.textContent);
  });
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) conversation?.refresh().catch(() => {});
});
onLanguage(() => {
  transcript.redraw();
  drawHuman();
  if (notice) view.notice(notice.key, notice.values);
  if (conversation?.busy) byId("stop-text").textContent = t("stop");
});
connection.watch();
begin();
