// One customer's conversation: sends messages and decisions, follows the run, and finds its way back after trouble.
import { newKey } from "./api.js";
import { language } from "./i18n.js";
import { apply, isRunning, newRun } from "./run_state.js";
import { openThread } from "./storage.js";
import { follow } from "./stream.js";

const HUMAN_POLL = 3000;

const citationMap = (citations) => new Map((citations ?? []).map((citation) => [citation.number, citation]));

/** A snapshot's messages as the transcript draws them; the running answer is left to its own events. */
export function messagesOf(snapshot, ratings) {
  const running = snapshot.run?.run_id;
  const messages = (snapshot.messages ?? [])
    .filter((message) => !(running && message.role === "agent" && message.run_id === running))
    .map((message) => ({
      role: message.role,
      text: message.text ?? "",
      citations: citationMap(message.citations),
      agent: message.agent ?? null,
      runId: message.run_id ?? null,
      rating: ratings.get(message.run_id) ?? message.thumb ?? 0,
      live: false,
      proposal: message.proposal ? { ...message.proposal } : undefined,
      decided: message.decided ?? null,
    }));
  closeOldProposals(messages);
  if (snapshot.proposal && !running) {
    const last = messages.at(-1);
    if (last?.role === "agent") last.proposal = { ...snapshot.proposal };
    else messages.push({ ...agentMessage(null), live: false, proposal: { ...snapshot.proposal } });
  }
  return messages;
}

/** What became of each question that was asked: the customer decided, wrote something else, or it was withdrawn. */
function closeOldProposals(messages) {
  const decisions = new Map(messages.filter((one) => one.decided).map(({ decided }) => [decided.proposal_id, decided]));
  messages.forEach((message, place) => {
    if (!message.proposal) return;
    const decision = decisions.get(message.proposal.proposal_id);
    const words = messages[place + 1]?.role === "customer" ? "words" : "notOpen";
    // Asked again after a question in between: the decision belongs to the last time.
    const later = messages
      .slice(place + 1)
      .some((other) => other.proposal?.proposal_id === message.proposal.proposal_id);
    message.proposal.decided = decision && !later ? (decision.approve ? "confirmed" : "declined") : words;
  });
}

const agentMessage = (runId) => ({
  role: "agent",
  text: "",
  citations: new Map(),
  runId,
  agent: null,
  live: true,
  rating: 0,
});

class GivenUp extends Error {}

export class Conversation {
  /**
   * `view` is told: busy(isBusy), human({position, active} or null), notice(key, values), announce(key, values),
   * panel(run, n, of), sent(text), stopping(), named(thread) when a new conversation got its id, lostThread(),
   * changed() when the list of conversations may differ; and is asked typed(text): does the box still hold it?
   */
  constructor(api, customer, transcript, connection, view) {
    Object.assign(this, { api, customer, transcript, connection, view });
    this.ratings = new Map();
    this.runs = new Map();
    this.thread = null;
    this.run = null;
    this.busy = false;
    this.selected = null;
    this.leaving = new AbortController();
  }

  /** Stop following, for good: another conversation or customer takes the page over. */
  leave() {
    this.leaving.abort();
    this.waiting?.abort();
    clearTimeout(this.timer);
  }

  /** Show a thread, or an empty page for a new one. */
  async open(thread) {
    this.leave();
    this.leaving = new AbortController();
    Object.assign(this, { thread, run: null, busy: false, selected: null });
    this.runs.clear();
    openThread(this.customer.customer_id, thread);
    this.transcript.set([]);
    this.view.busy(false);
    this.view.human(null);
    this.view.panel(null);
    if (thread) await this.load();
  }

  /** Draw the service's snapshot of the thread, and follow its run if one is going on. */
  async load() {
    const { signal } = this.leaving;
    const snapshot = await this.api.thread(this.thread);
    if (signal.aborted) return;
    this.shown = snapshot.messages?.length ?? 0;
    this.transcript.set(messagesOf(snapshot, this.ratings));
    this.tellHuman(snapshot);
    this.selected = null;
    if (snapshot.run?.run_id) await this.continueRun(snapshot.run.run_id);
    else await this.select(this.answers().at(-1));
    if (snapshot.human) this.pollHuman();
  }

  /** A person was asked for: until they write, the agents go on helping and the place in the queue is shown. */
  tellHuman(snapshot) {
    const position = snapshot.position ?? this.run?.human?.position ?? null;
    this.view.human(snapshot.human ? { position, active: Boolean(snapshot.human_active) } : null);
  }

  answers() {
    return this.transcript.messages.filter((message) => message.role === "agent" && message.runId);
  }

  /** Show in the panel what the agents did for an answer: from memory, or replayed from the service's log. */
  async select(message) {
    if (!message) return;
    this.selected = message;
    this.transcript.mark(message);
    const run = this.runs.get(message.runId) ?? newRun(message.runId);
    const known = this.runs.has(message.runId);
    this.runs.set(message.runId, run);
    this.showPanel();
    if (known || (isRunning(this.run) && this.run.id === run.id)) return;
    const { signal } = this.leaving;
    await follow(this.api.eventsUrl(run.id), {
      token: this.api.token,
      signal,
      onEvent: (event) => apply(run, event) && this.selected === message && this.showPanel(),
    });
  }

  /** The answer before (-1) or after (+1) the selected one. */
  step(by) {
    const answers = this.answers();
    return this.select(answers[answers.indexOf(this.selected) + by]);
  }

  showPanel() {
    const answers = this.answers();
    this.view.panel(this.runs.get(this.selected?.runId) ?? null, answers.indexOf(this.selected) + 1, answers.length);
  }

  /** Send a message. The view drops the typed text only when the service has taken it. */
  send(text) {
    return this.start({ message: text }, text);
  }

  decide(proposal, approve) {
    return this.start(
      { decision: { proposal_id: proposal.proposal_id, approve } },
      null,
      approve ? "confirmed" : "declined",
    );
  }

  async start(body, text, decided = "words") {
    if (this.busy) return this.view.notice("stillAnswering");
    this.setBusy(true);
    this.view.notice(null);
    const clock = performance.now();
    const { signal } = this.leaving;
    let runId;
    try {
      runId = await this.post(body, text);
    } catch (error) {
      if (signal.aborted) return;
      this.setBusy(false);
      return this.refused(error);
    }
    if (signal.aborted) return;
    this.closeProposals(decided);
    if (text !== null) {
      this.view.sent(text);
      this.transcript.add({ role: "customer", text, citations: new Map() });
    }
    this.view.changed();
    await this.followRun(newRun(runId, clock), text);
  }

  /**
   * Create the run; while the service cannot be reached, wait and try again with the same key: should it have taken the
   * message before the line broke, it answers with that run.
   * Throws GivenUp when the customer stopped or changed the text.
   */
  async post(body, text) {
    const key = newKey();
    this.waiting = new AbortController();
    const { signal } = this.waiting;
    for (;;) {
      try {
        await this.ensureThread();
        const { run_id: runId } = await this.api.run(this.thread, body, key);
        this.view.notice(null);
        return runId;
      } catch (error) {
        if (error.status !== 0) throw error;
      }
      this.connection.lost();
      this.view.notice("notSentYet");
      await this.connection.reachable(signal);
      if (signal.aborted || (text !== null && !this.view.typed(text))) throw new GivenUp();
    }
  }

  async ensureThread() {
    if (this.thread) return;
    this.thread = (await this.api.newThread(language())).thread_id;
    openThread(this.customer.customer_id, this.thread);
    this.view.named(this.thread);
  }

  closeProposals(decided) {
    for (const message of this.transcript.messages) {
      if (!message.proposal || message.proposal.decided) continue;
      message.proposal.decided = decided;
      this.transcript.update(message);
    }
  }

  continueRun(runId) {
    this.setBusy(true);
    return this.followRun(newRun(runId), null);
  }

  async followRun(run, text) {
    const { signal } = this.leaving;
    const message = Object.assign(agentMessage(run.id), { sent: text });
    this.run = run;
    this.runs.set(run.id, run);
    this.transcript.add(message);
    this.selected = message;
    this.transcript.mark(message);
    this.showPanel();
    this.view.announce("answering");
    const outcome = await follow(this.api.eventsUrl(run.id), {
      token: this.api.token,
      signal,
      onEvent: (event) => this.take(run, message, event),
      onState: (state, attempt) => this.connection.set(state, attempt),
    });
    if (signal.aborted) return;
    this.setBusy(false);
    // A person has the conversation: the agents stay silent, and an empty answer is none.
    if (run.status === "human" && !run.text) this.transcript.remove(message);
    if (outcome.reason !== "end" || run.partial) await this.load().catch((error) => this.refused(error));
    else this.finish(run, message);
    this.view.changed();
  }

  take(run, message, event) {
    if (!apply(run, event)) return;
    Object.assign(message, { text: run.text, citations: run.citations, agent: run.active, live: isRunning(run) });
    if (run.partial) message.note = "lost";
    if (run.proposal && run.status === "waiting") message.proposal ??= { ...run.proposal };
    this.transcript.update(message);
    if (this.selected === message) this.showPanel();
  }

  /** The run is over: say it once, whole, for those who listen. */
  finish(run, message) {
    if (run.status === "cancelled") message.note = "stopped";
    if (run.status === "failed") {
      message.failure = run.error?.message ?? "";
      message.again = run.error?.retryable !== false && message.sent !== null;
    }
    this.transcript.update(message);
    const text = run.text || message.failure || "";
    if (message.proposal)
      this.view.announce("needsYouSpoken", {
        title: message.proposal.title ?? "",
        summary: message.proposal.summary ?? "",
      });
    else if (run.status === "cancelled") this.view.announce("stopped");
    else this.view.announce("answered", { text });
    if (run.human || run.status === "human") this.pollHuman(0);
  }

  async stop() {
    this.waiting?.abort();
    if (!isRunning(this.run)) return;
    this.view.stopping();
    try {
      await this.api.cancel(this.run.id);
    } catch (error) {
      if (error.status !== 404 && error.status !== 409) this.refused(error);
    }
  }

  setBusy(busy) {
    this.busy = busy;
    this.view.busy(busy);
  }

  /** The service did not take what was sent: say why; the text is still in the box. */
  async refused(error) {
    if (error instanceof GivenUp) {
      this.view.notice("notSent");
      return this.thread && this.connection.state === "open" ? this.load().catch(() => {}) : undefined;
    }
    if (error.status === 0) return this.connection.lost(); // the snapshot is loaded when the service is back
    if (error.status === 409) return this.conflict();
    if (error.status === 429) return this.view.notice("busy", { seconds: error.retryAfter || 1 });
    if (error.status === 413) return this.view.notice("tooLong");
    if (error.status === 404) {
      await this.open(null);
      this.view.lostThread();
      return this.view.notice("threadGone");
    }
    return this.view.notice(null, {}, [error.message, error.tryNext].filter(Boolean).join(". "));
  }

  /** A run is going on (another tab began it), or the question was answered already: show how it stands. */
  async conflict() {
    const snapshot = await this.api.thread(this.thread).catch(() => null);
    if (!snapshot) return;
    this.view.notice(snapshot.run ? "stillAnswering" : "notOpen");
    await this.load().catch(() => {});
  }

  /** While a person has the conversation, their messages arrive through the snapshot. */
  pollHuman(wait = HUMAN_POLL) {
    const { signal } = this.leaving;
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      const more = await this.refresh().catch(() => true);
      if (more && !signal.aborted) this.pollHuman();
    }, wait);
  }

  /** Take over what changed elsewhere (a person's reply, another tab). Resolves to whether a person is still there. */
  async refresh() {
    if (!this.thread || this.busy) return true;
    const { signal } = this.leaving;
    const snapshot = await this.api.thread(this.thread);
    if (signal.aborted || this.busy) return true;
    this.tellHuman(snapshot);
    const messages = snapshot.messages ?? [];
    const fresh = messages.slice(this.shown ?? 0).filter((message) => message.role === "human");
    if (messages.length !== this.shown || snapshot.run) {
      const was = this.answers().indexOf(this.selected);
      await this.load();
      if (!snapshot.run && was >= 0) await this.select(this.answers()[was]);
    }
    if (fresh.length) this.view.announce("answered", { text: fresh.map((message) => message.text).join(" ") });
    return Boolean(snapshot.human);
  }

  async rate(message, score, comment) {
    await this.api.feedback(message.runId, score, comment);
    this.ratings.set(message.runId, score);
  }
}
