// What one run has told so far. `apply` folds an event into the state; the transcript, the panel and the graph draw it.

/** A run as it is before its first event. `clock` in ms; null when the run is older than this page. */
export function newRun(id, clock = null) {
  return {
    id,
    status: "running",
    last: 0,
    partial: false,
    resumed: false,
    text: "",
    error: null,
    thread: null,
    active: null,
    node: null,
    path: [],
    handoffs: [],
    intents: [],
    slots: {},
    asked: null,
    tools: [],
    guardrails: [],
    citations: new Map(),
    proposal: null,
    human: null,
    understander: null,
    wording: null,
    usage: null,
    clock,
    local: clock !== null,
    times: { firstEvent: null, firstToken: null, whole: null },
  };
}

/** A run that may still send something. */
export const isRunning = (run) => run !== null && run !== undefined && run.status === "running";

const HANDLERS = {
  start(run, data) {
    run.thread = data.thread_id ?? run.thread;
    run.understander = data.understander ?? null;
    run.wording = data.wording ?? null;
    // The service was restarted in the middle: it goes on from its last checkpoint and words the answer anew.
    if (data.resumed)
      Object.assign(run, { resumed: true, text: "", citations: new Map(), proposal: null, error: null });
  },
  node(run, data) {
    if (data.phase === "start") {
      run.path.push({ name: data.name, agent: data.agent ?? null, ms: null });
      run.node = data.name;
      // The supervisor is at work before and after an agent; the answer is the agent's.
      if (data.agent && (data.agent !== "supervisor" || !run.active)) run.active = data.agent;
      return;
    }
    const open = run.path.findLast((step) => step.name === data.name && step.ms === null);
    if (open) open.ms = data.ms ?? 0;
    run.node = run.path.findLast((step) => step.ms === null)?.name ?? null;
  },
  intent(run, data) {
    run.intents.push(data);
  },
  slots(run, data) {
    run.slots = data.slots ?? {};
    run.asked = data.asked ?? null;
  },
  handoff(run, data) {
    run.handoffs.push(data);
    run.active = data.to;
  },
  tool(run, data) {
    const open = run.tools.find((tool) => tool.name === data.name && tool.phase === "call");
    if (data.phase === "result" && open) Object.assign(open, data, { arguments: data.arguments ?? open.arguments });
    else run.tools.push({ ...data });
  },
  citation(run, data) {
    run.citations.set(data.number, data);
  },
  guardrail(run, data) {
    run.guardrails.push(data);
  },
  token(run, data) {
    run.text += data.text ?? "";
  },
  interrupt(run, data) {
    run.proposal = data;
  },
  usage(run, data) {
    const before = run.usage ?? { input: 0, output: 0, models: [] };
    run.usage = {
      input: before.input + (data.input_tokens ?? 0),
      output: before.output + (data.output_tokens ?? 0),
      models: data.model && !before.models.includes(data.model) ? [...before.models, data.model] : before.models,
    };
  },
  human(run, data) {
    run.human = data;
  },
  error(run, data) {
    run.error = data;
  },
  end(run, data) {
    run.status = data.reason ?? "answered";
    run.node = null;
    // The joined tokens are the answer. Where some are missing (resync), the end's own text is.
    if (data.text && (run.partial || !run.text)) run.text = data.text;
  },
  resync(run) {
    Object.assign(run, { partial: true, text: "", path: [], tools: [], intents: [], guardrails: [], handoffs: [] });
  },
};

/** Fold one event {id, type, data} into the run. An event that was seen before changes nothing. */
export function apply(run, event, now = performance.now()) {
  if (event.type !== "resync" && event.id <= run.last) return false;
  run.last = event.id;
  measure(run, event, now);
  HANDLERS[event.type]?.(run, event.data);
  return true;
}

/** Times since the run began: by this page's clock where it started the run, else by the service's ("at", s). */
function measure(run, event, now) {
  const moment = run.local ? now : event.data.at * 1000;
  if (!Number.isFinite(moment)) return;
  run.clock ??= moment;
  const since = moment - run.clock;
  run.times.firstEvent ??= since;
  if (event.type === "token") run.times.firstToken ??= since;
  if (event.type === "end") run.times.whole = since;
}

/** The nodes of the path, the same one twice in a row (start of a resumed run) counted once. */
export function visited(run) {
  return run.path.map((step) => step.name).filter((name, index, names) => name !== names[index - 1]);
}
