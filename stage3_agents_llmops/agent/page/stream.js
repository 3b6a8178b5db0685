// Server-sent events over fetch: EventSource cannot send the Authorization header, and hides why it failed.
// Reads WHATWG's text/event-stream (HTML standard, 9.2.6), reconnects with backoff and jitter, and goes on
// where it stopped (Last-Event-ID).

const FIRST_WAIT = 400; // ms, doubled per attempt
const LONGEST_WAIT = 8000;
const SILENCE = 45000; // the service sends a comment every 15 s: three missed ones mean the line is dead

/** Text in, events out: {id, type, data}. Lines end with LF, CR or CRLF, wherever the chunks are cut. */
export class FrameParser {
  constructor() {
    this.rest = "";
    this.id = "";
    this.retry = null;
    this.clear();
  }

  clear() {
    this.type = "";
    this.data = [];
  }

  push(text) {
    const events = [];
    let buffer = this.rest + text;
    // A CR at the very end may be half of a CRLF: it waits for the next chunk.
    const held = buffer.endsWith("\r") ? "\r" : "";
    if (held) buffer = buffer.slice(0, -1);
    const lines = buffer.split(/\r\n|\n|\r/);
    this.rest = lines.pop() + held;
    for (const line of lines) {
      if (line) this.field(line);
      else {
        if (this.data.length) events.push({ id: this.id, type: this.type || "message", data: this.data.join("\n") });
        this.clear();
      }
    }
    return events;
  }

  field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment: the heartbeat
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.data.push(value);
    else if (name === "event") this.type = value;
    else if (name === "id" && !value.includes("\0")) this.id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
  }
}

/** Milliseconds before attempt 1, 2, ...: doubled each time, a random half taken off so that clients spread out. */
export function backoff(attempt, first = FIRST_WAIT, random = Math.random) {
  const whole = Math.min(LONGEST_WAIT, first * 2 ** (attempt - 1));
  return whole / 2 + (random() * whole) / 2;
}

/** Wait; shorter when the browser says that the network is back, and not at all once aborted. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
  });
}

/**
 * Follow a run until its `end`. `onEvent({id, type, data})` gets every event once, `onState(state, attempt)` hears
 * "open" and "waiting". Resolves to "end", "past" (nothing newer than the cursor), "aborted", or "refused" with the
 * response's status (401, 403, 404: trying again would not help).
 */
export async function follow(url, { token, after = 0, signal, onEvent, onState = () => {} }) {
  let last = Number(after);
  let attempt = 0;
  let first = FIRST_WAIT;
  for (;;) {
    if (signal?.aborted) return { reason: "aborted", last };
    let wait = 0;
    try {
      const response = await open(url, token, last, signal);
      if (response.status === 204) return { reason: "past", last };
      if ([400, 401, 403, 404, 422].includes(response.status))
        return { reason: "refused", status: response.status, last };
      if (!isStream(response)) {
        wait = Number(response.headers.get("Retry-After") ?? 0) * 1000;
        throw new Error(`status ${response.status}`);
      }
      onState("open", 0);
      for await (const event of events(response, signal)) {
        if (event.retry) first = event.retry;
        if (event.type === null) continue;
        attempt = 0;
        const id = Number(event.id);
        if (event.type !== "resync" && event.id !== "" && id <= last) continue; // seen before the line broke
        const data = parsed(event.data);
        if (event.type === "resync" && data.reason === "restarting") continue; // the cursor stays good
        // A resync moves the cursor back or forth: what follows counts from there.
        if (event.type === "resync") last = Math.max(0, Number(data.oldest ?? id + 1) - 1);
        else if (event.id !== "") last = id;
        deliver(onEvent, { id: last, type: event.type, data });
        if (event.type === "end") return { reason: "end", last };
      }
    } catch {
      if (signal?.aborted) return { reason: "aborted", last };
    }
    attempt += 1;
    onState("waiting", attempt);
    await pause(Math.max(wait, backoff(attempt, first)), signal);
  }
}

/** A view that cannot draw one event must not cut the line. */
function deliver(onEvent, event) {
  try {
    onEvent(event);
  } catch (error) {
    reportError(error);
  }
}

function open(url, token, last, signal) {
  const headers = { Accept: "text/event-stream" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (last > 0) headers["Last-Event-ID"] = String(last);
  return fetch(url, { headers, signal, cache: "no-store" });
}

const isStream = (response) =>
  response.ok && (response.headers.get("Content-Type") ?? "").startsWith("text/event-stream");

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/** The events of one response; a line that has been silent for too long counts as broken. */
async function* events(response, signal) {
  const parser = new FrameParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await withinSilence(reader.read(), signal);
      if (done) return;
      const found = parser.push(value);
      if (parser.retry !== null) {
        yield { type: null, retry: parser.retry };
        parser.retry = null;
      }
      yield* found;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function withinSilence(reading, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("silent")), SILENCE);
    const aborted = () => reject(new Error("aborted"));
    signal?.addEventListener("abort", aborted, { once: true });
    reading.then(resolve, reject).finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", aborted);
    });
  });
}
