// The panel beside the chat: what the agents did for one answer.
import { byId, duration, el, show } from "./dom.js";
import { GraphView } from "./graph.js";
import { language, named, onLanguage, t } from "./i18n.js";
import { visited } from "./run_state.js";

export class Panel {
  /** `onTurn(step)`: the reader asks for the answer before (-1) or after (+1). */
  constructor(onTurn) {
    this.graph = null;
    this.health = null;
    this.run = null;
    this.position = { n: 0, of: 0 };
    this.drawn = new Map(); // section -> what it was drawn from: an unchanged section keeps its focus and open details
    byId("earlier").addEventListener("click", () => onTurn(-1));
    byId("later").addEventListener("click", () => onTurn(1));
    onLanguage(() => this.redraw());
  }

  setGraph(topology) {
    try {
      this.graph = new GraphView(byId("graph"), topology);
    } catch (error) {
      byId("graph").textContent = t("graphNone");
      reportError(error);
    }
  }

  setHealth(health) {
    this.health = health;
    this.draw();
  }

  /** Show a run (null: nothing yet); it is answer n of `of`. */
  show(run, n = 0, of = 0) {
    if (run !== this.run) this.drawn.clear();
    this.run = run;
    this.position = { n, of };
    this.draw();
  }

  redraw() {
    this.drawn.clear();
    this.draw();
  }

  draw() {
    const { run } = this;
    show(byId("panel-empty"), !run);
    for (const id of ["panel-head", "panel-run"]) show(byId(id), Boolean(run));
    this.graph?.light(run && visited(run), run?.node, run?.status === "answered");
    this.section("models", [this.health, run?.understander, run?.wording, run?.usage], () => models(this.health, run));
    if (!run) return;
    byId("turn").textContent = t("turn", this.position);
    byId("earlier").disabled = this.position.n <= 1;
    byId("later").disabled = this.position.n >= this.position.of;
    this.section("now", [run.active, run.status, run.handoffs], () => now(run));
    this.section("steps", run.path, () => steps(run));
    this.section("understanding", run.intents, () => run.intents.map(intent));
    this.section("slots", [run.slots, run.asked], () => slots(run));
    this.section("tools", run.tools, () => run.tools.map(tool));
    this.section("guardrails", run.guardrails, () => run.guardrails.map(guardrail));
    this.section("timing", [run.times, run.usage, run.status], () => timing(run));
  }

  /** Draw one section anew when its data changed; a section without content is hidden. */
  section(name, data, build) {
    const signature = JSON.stringify(data);
    if (this.drawn.get(name) === signature) return;
    this.drawn.set(name, signature);
    const content = byId(`panel-${name}`);
    const open = new Set([...content.querySelectorAll("details[open]")].map((details) => details.dataset.key));
    const focused = content.contains(document.activeElement)
      ? document.activeElement.closest("details")?.dataset.key
      : null;
    content.replaceChildren(...[build()].flat().filter(Boolean));
    for (const details of content.querySelectorAll("details")) {
      details.open = open.has(details.dataset.key);
      if (details.dataset.key === focused) details.querySelector("summary").focus();
    }
    show(content.closest("section"), content.childElementCount > 0);
  }
}

const term = (name, value) => [el("dt", {}, name), el("dd", {}, value)];

function now(run) {
  const state = el("span", { class: `state ${run.status}` }, t(`status_${run.status}`));
  return [
    el("p", { class: "now" }, el("strong", {}, named("node", run.active ?? "supervisor")), state),
    ...run.handoffs.map(({ from, to }) =>
      el("p", { class: "handoff" }, t("handoff", { from: named("node", from), to: named("node", to) })),
    ),
  ];
}

function steps(run) {
  if (!run.path.length) return null;
  const rows = run.path.map((step) =>
    el(
      "li",
      {},
      el(
        "span",
        {},
        step.name
          .split(":")
          .map((name) => named("node", name))
          .join(": "),
      ),
      el("span", { class: "ms" }, step.ms === null ? "…" : duration(step.ms)),
    ),
  );
  return el("details", { "data-key": "steps" }, el("summary", {}, t("steps", { n: rows.length })), el("ol", {}, rows));
}

function intent({ intent: name, confidence, abstain, source, request = 1, of = 1 }) {
  const percent = Math.round((confidence ?? 0) * 100);
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.inlineSize = `${percent}%`;
  return el(
    "div",
    { class: abstain ? "intent unsure" : "intent" },
    el(
      "p",
      {},
      of > 1 ? el("span", { class: "muted" }, `${t("intent", { request, of })} · `) : null,
      el("strong", {}, named("intent", name)),
      abstain ? el("span", { class: "tag warn" }, t("abstained")) : null,
    ),
    bar,
    el("p", { class: "muted" }, t("confidence", { percent, by: named("by", source ?? "rules") })),
  );
}

function slots(run) {
  const known = Object.entries(run.slots).filter(([, value]) => value !== null && value !== "");
  if (!known.length && !run.asked) return null;
  const value = (name, text) => (name === "reason" ? named("reason", text) : String(text));
  return [
    known.length
      ? el(
          "dl",
          {},
          known.map(([name, text]) => term(named("slot", name), value(name, text))),
        )
      : null,
    run.asked ? el("p", { class: "tag warn" }, t("asked", { slot: named("slot", run.asked) })) : null,
  ];
}

function tool(data, index) {
  const running = data.phase === "call";
  const [state, mark] = running ? ["running", "…"] : data.ok ? ["ok", "✓"] : ["failed", "✕"];
  return el(
    "details",
    { "data-key": `tool-${index}`, class: "tool" },
    el(
      "summary",
      {},
      el("span", { class: `mark ${state}`, "aria-hidden": "true" }, mark),
      el("code", {}, data.name),
      el(
        "span",
        { class: "tags" },
        data.sensitive ? el("span", { class: "tag warn" }, t("tool_sensitive")) : null,
        el("span", { class: "tag" }, t(data.write ? "tool_write" : "tool_read")),
        el("span", { class: `tag ${state}` }, t(`tool_${state}`)),
      ),
    ),
    values(t("arguments"), data.arguments),
    running
      ? null
      : values(t("result"), {
          ...(data.message_code ? { code: data.message_code } : {}),
          ...(data.result ?? data.data ?? {}),
        }),
  );
}

function values(title, object) {
  const entries = Object.entries(object ?? {});
  if (!entries.length) return null;
  const text = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
  return [
    el("p", { class: "label" }, title),
    el(
      "dl",
      {},
      entries.map(([name, value]) => term(named("slot", name), text(value))),
    ),
  ];
}

function guardrail({ stage, finding, action }) {
  return el(
    "p",
    { class: "guardrail" },
    el("span", { class: "tag warn" }, named("stage", stage)),
    ` ${String(finding).replaceAll("_", " ")}`,
    el("span", { class: "muted" }, ` → ${String(action).replaceAll("_", " ")}`),
  );
}

function timing(run) {
  const { firstEvent, firstToken, whole } = run.times;
  const time = (ms) => (ms === null ? "–" : duration(ms));
  const tokens = run.usage?.input || run.usage?.output ? t("tokensInOut", run.usage) : t("noTokens");
  const number = (text) =>
    language() === "zh" ? text : text.replace(/\d{4,}/g, (n) => Number(n).toLocaleString("en"));
  return el("dl", { class: "figures" }, [
    term(t("firstEvent"), time(firstEvent)),
    term(t("firstToken"), time(firstToken)),
    term(t("whole"), time(whole)),
    term(t("tokens"), run.status === "running" && !run.usage ? "–" : number(tokens)),
  ]);
}

function models(health, run) {
  const wording = run?.wording ?? health?.wording;
  const used = run?.usage?.models.join(", ") || health?.model;
  if (!health && !run) return null;
  return el("dl", {}, [
    term(t("understander"), named("understander", run?.understander ?? health?.understander ?? t("none"))),
    term(t("wording"), named("wording", wording ?? t("none"))),
    term(t("endpoint"), used || t("none")),
  ]);
}
