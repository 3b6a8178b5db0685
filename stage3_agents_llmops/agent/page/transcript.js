// The conversation as a list of messages: text, citations that open, confirm buttons, thumbs.
import { el, perFrame } from "./dom.js";
import { named, t } from "./i18n.js";
import { icon } from "./icons.js";

/** The text with its [1] as buttons, where such a citation exists. Everything else is a text node. */
export function withCitations(text, citations, open) {
  return text.split(/(\[\d{1,2}\])/).map((piece) => {
    const number = Number(piece.match(/^\[(\d+)\]$/)?.[1]);
    const citation = citations.get(number);
    if (!citation) return piece;
    const label = t("source", { number, title: citation.title ?? "" });
    return el(
      "button",
      { type: "button", class: "cite", "aria-label": label, title: label, onclick: () => open(number) },
      number,
    );
  });
}

/** The sources of an answer, each a <details> with its text. */
function sources(citations) {
  if (!citations.size) return null;
  const items = [...citations.values()].map((citation) =>
    el(
      "details",
      { "data-number": citation.number, class: "source" },
      el(
        "summary",
        {},
        el("span", { class: "number" }, citation.number),
        el("span", { class: "name" }, citation.title || citation.id),
        el("span", { class: "tag" }, t(citation.kind === "product" ? "sourceProduct" : "sourceHelp")),
      ),
      el("p", {}, citation.text ?? ""),
      citation.id ? el("p", { class: "muted" }, el("code", {}, citation.id)) : null,
    ),
  );
  return el("div", { class: "sources", role: "group", "aria-label": t("sources") }, items);
}

/** Two buttons, and below no what was wrong. `rate(score, comment)` resolves when the service noted it. */
function thumbs(message, rate) {
  const note = el("span", { class: "muted", role: "status" }, message.rating ? t("rated") : "");
  const press = async (score, comment) => {
    await rate(score, comment);
    message.rating = score;
    buttons.forEach((button) => button.setAttribute("aria-pressed", Number(button.value) === score));
    form.hidden = score > 0 || Boolean(comment);
    note.textContent = t("rated");
  };
  const button = (score, label, name) =>
    el(
      "button",
      {
        type: "button",
        value: score,
        class: "icon",
        title: t(label),
        "aria-label": t(label),
        "aria-pressed": String(message.rating === score),
        onclick: () => press(score).catch(() => (note.textContent = t("failed"))),
      },
      icon(name),
    );
  const buttons = [button(1, "helpful", "up"), button(-1, "notHelpful", "down")];
  const field = el("input", { type: "text", maxlength: 500, "aria-label": t("comment"), placeholder: t("comment") });
  const form = el(
    "form",
    { class: "comment", hidden: true },
    field,
    el("button", { type: "submit" }, t("sendComment")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim()) press(-1, field.value.trim()).catch(() => (note.textContent = t("failed")));
  });
  return [el("span", { class: "thumbs", role: "group", "aria-label": t("rate") }, buttons, note), form];
}

/**
 * What the customer is asked to confirm; `said` is the text above it.
 * `proposal.decided`: undefined (open), "confirmed", "declined", "words".
 */
function confirmation(proposal, said, decide) {
  const buttons = el(
    "div",
    { class: "buttons" },
    el("button", { type: "button", class: "primary", onclick: () => decide(true) }, t("confirm")),
    el("button", { type: "button", class: "quiet", onclick: () => decide(false) }, t("decline")),
    el("span", { class: "muted" }, t("orWords")),
  );
  const entries = Object.entries(proposal.arguments ?? {}).filter(([, value]) => value !== null && value !== "");
  const text = (name, value) => (name === "reason" ? named("reason", value) : String(value));
  return el(
    "div",
    {
      class: "confirmation",
      role: "group",
      "aria-label": `${t("needsYou")}: ${proposal.title ?? ""}`,
      "data-proposal": proposal.proposal_id,
    },
    el("p", { class: "label" }, t("needsYou")),
    el("p", { class: "headline" }, proposal.title || named("tool", proposal.tool)),
    proposal.summary && !said.includes(proposal.summary) ? el("p", {}, proposal.summary) : null,
    entries.length
      ? el(
          "dl",
          {},
          entries.map(([name, value]) => [el("dt", {}, named("slot", name)), el("dd", {}, text(name, value))]),
        )
      : null,
    proposal.decided ? el("p", { class: `decided ${proposal.decided}` }, t(proposal.decided)) : buttons,
  );
}

const ROLES = { customer: "you", agent: "agent", human: "person" };

/** Draws the messages it is given; each message: {role, text, run?, citations, proposal?, failed?, rating?, live?}. */
export class Transcript {
  /** `actions`: decide(proposal, approve), rate(message, score, comment), select(message), retry(message). */
  constructor(list, scroller, actions) {
    this.list = list;
    this.scroller = scroller;
    this.actions = actions;
    this.messages = [];
    this.items = new Map();
    this.changed = new Set();
    this.flush = perFrame(() => this.drawChanged());
  }

  set(messages) {
    this.messages = messages;
    this.items.clear();
    this.list.replaceChildren();
    messages.forEach((message) => this.append(message));
    this.toEnd();
  }

  add(message) {
    this.messages.push(message);
    this.append(message);
    this.toEnd();
  }

  remove(message) {
    this.messages = this.messages.filter((other) => other !== message);
    this.items.get(message)?.remove();
    this.items.delete(message);
  }

  append(message) {
    const item = el("li", { class: `message ${message.role}` });
    this.items.set(message, item);
    this.list.append(item);
    this.draw(message);
  }

  /** The message changed: draw it with the next frame. */
  update(message) {
    this.changed.add(message);
    this.flush();
  }

  drawChanged() {
    const atEnd = this.atEnd();
    this.changed.forEach((message) => this.items.has(message) && this.draw(message));
    this.changed.clear();
    if (atEnd) this.toEnd();
  }

  redraw() {
    this.messages.forEach((message) => this.draw(message));
  }

  /** Mark the answer whose story the panel tells. */
  mark(selected) {
    for (const [message, item] of this.items) item.classList.toggle("selected", message === selected);
  }

  draw(message) {
    const item = this.items.get(message);
    // While tokens come in, only the text changes.
    if (message.live && item.dataset.live && message.text) {
      item.querySelector(".text").replaceChildren(...withCitations(message.text, message.citations, this.opener(item)));
      item.querySelector(".author").textContent = author(message);
      return;
    }
    const focused = item.contains(document.activeElement) ? document.activeElement.className : null;
    item.toggleAttribute("data-live", Boolean(message.live && message.text));
    if (message.live && message.text) item.dataset.live = "true";
    item.replaceChildren(...this.parts(message, item).flat(Infinity).filter(Boolean));
    if (focused) item.querySelector(`.${CSS.escape(focused.split(" ")[0])}`)?.focus();
  }

  opener(item) {
    return (number) => {
      const details = item.querySelector(`details[data-number="${Number(number)}"]`);
      if (!details) return;
      details.open = true;
      details.querySelector("summary").focus({ preventScroll: true });
      details.scrollIntoView({ block: "nearest" });
    };
  }

  parts(message, item) {
    const { actions } = this;
    const text = el("p", { class: "text" }, withCitations(message.text, message.citations, this.opener(item)));
    const waiting = el(
      "p",
      { class: "text waiting" },
      el("span", { class: "pulse", "aria-hidden": "true" }),
      t("thinking"),
    );
    const done = message.role === "agent" && !message.live;
    return [
      el("h3", { class: "author" }, author(message)),
      message.note ? el("p", { class: "muted" }, t(message.note)) : null,
      message.text ? text : message.live ? waiting : null,
      message.failure
        ? el(
            "div",
            { class: "failure" },
            el("p", {}, message.failure),
            message.again
              ? el("button", { type: "button", class: "quiet", onclick: () => actions.retry(message) }, t("tryAgain"))
              : null,
          )
        : null,
      message.proposal
        ? confirmation(message.proposal, message.text, (approve) => actions.decide(message.proposal, approve))
        : null,
      done ? sources(message.citations) : null,
      done && message.runId
        ? el(
            "div",
            { class: "under" },
            thumbs(message, (score, comment) => actions.rate(message, score, comment)),
            el(
              "button",
              { type: "button", class: "link story", title: t("showTurn"), onclick: () => actions.select(message) },
              t("whatAgentsDid"),
            ),
          )
        : null,
    ];
  }

  atEnd() {
    return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < 80;
  }

  toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }
}

function author(message) {
  const agent =
    message.role === "agent" && message.agent?.endsWith("_agent") ? ` · ${named("node", message.agent)}` : "";
  return t(ROLES[message.role] ?? "agent") + agent;
}
