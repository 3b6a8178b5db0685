// The service's calls as functions. Every error is an ApiError with the service's own words and what to try.

export class ApiError extends Error {
  /** status 0: the service could not be reached. retryAfter in seconds. */
  constructor(status, message, tryNext = "", retryAfter = 0) {
    super(message);
    this.status = status;
    this.tryNext = tryNext;
    this.retryAfter = retryAfter;
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** A client for one token (null: calls that need none). */
export class Api {
  constructor(token = null) {
    this.token = token;
  }

  async call(method, path, body, more = {}) {
    const headers = { Accept: "application/json", ...more };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response, text;
    try {
      response = await fetch(path, {
        method,
        headers,
        cache: "no-store",
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      text = await response.text(); // the line may break here too, after the service has acted
    } catch {
      throw new ApiError(0, "the service cannot be reached");
    }
    const answer = parsed(text);
    if (response.ok) return answer;
    const message = typeof answer?.error === "string" ? answer.error : `status ${response.status}`;
    throw new ApiError(response.status, message, answer?.try ?? "", Number(response.headers.get("Retry-After") ?? 0));
  }

  health = () => this.call("GET", "/health");
  graph = () => this.call("GET", "/graph");
  demoCustomers = () => this.call("GET", "/demo/customers");
  threads = () => this.call("GET", "/threads").then((answer) => answer.threads ?? answer);
  thread = (id) => this.call("GET", `/threads/${encodeURIComponent(id)}`);
  newThread = (language) => this.call("POST", "/threads", { language });
  /** `key`: the same key again gives the same run, so a lost answer can be asked for again without a second run. */
  run = (thread, body, key) =>
    this.call("POST", `/threads/${encodeURIComponent(thread)}/runs`, body, { "Idempotency-Key": key });
  runStatus = (id) => this.call("GET", `/runs/${encodeURIComponent(id)}`);
  cancel = (id) => this.call("POST", `/runs/${encodeURIComponent(id)}/cancel`);
  feedback = (id, score, comment) =>
    this.call("POST", `/runs/${encodeURIComponent(id)}/feedback`, comment ? { score, comment } : { score });
  queue = () => this.call("GET", "/operator/queue").then((answer) => answer.queue ?? answer);
  operatorReply = (thread, text) =>
    this.call("POST", `/operator/threads/${encodeURIComponent(thread)}/reply`, { text });
  release = (thread) => this.call("POST", `/operator/threads/${encodeURIComponent(thread)}/release`);
  eventsUrl = (id) => `/runs/${encodeURIComponent(id)}/events`;
}

/** Sixteen random bytes in hex (crypto.randomUUID would need https or localhost). */
export const newKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
