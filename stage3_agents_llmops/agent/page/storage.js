// What the browser keeps: language, customer, the open conversation, and text that was typed and not yet sent.
const PREFIX = "course-shop:";

/** A browser may refuse storage (private windows, policies): then the page works and remembers nothing. */
function attempt(action, fallback) {
  try {
    return action();
  } catch {
    return fallback;
  }
}

export const remember = (key, value) => attempt(() => localStorage.setItem(PREFIX + key, value));
export const remembered = (key, fallback = null) => attempt(() => localStorage.getItem(PREFIX + key), null) ?? fallback;
export const forget = (key) => attempt(() => localStorage.removeItem(PREFIX + key));

/** The conversation that is open in this tab; another tab may have another one open. */
export function openThread(customer, thread) {
  attempt(() => sessionStorage.setItem(`${PREFIX}thread:${customer}`, thread ?? ""));
  remember(`thread:${customer}`, thread ?? "");
}

export function lastThread(customer) {
  const here = attempt(() => sessionStorage.getItem(`${PREFIX}thread:${customer}`), null);
  return (here ?? remembered(`thread:${customer}`)) || null;
}

/** Keep a text field's content until it was sent: it outlives a reload, a crash and a change of conversation. */
export class Draft {
  constructor(field, scope = "nobody") {
    this.field = field;
    this.key = null;
    this.scope = scope;
    field.addEventListener("input", () => this.save());
  }

  save() {
    if (this.key === null) return;
    if (this.field.value) remember(this.key, this.field.value);
    else forget(this.key);
  }

  /** Show what was typed for this conversation. */
  open(name) {
    this.key = `draft:${this.scope}:${name}`;
    this.field.value = remembered(this.key, "");
    this.field.dispatchEvent(new Event("draft"));
  }

  /** The conversation got its id: the text moves along with it. */
  rename(name) {
    if (this.key !== null) forget(this.key);
    this.key = `draft:${this.scope}:${name}`;
    this.save();
  }

  /** `text` was accepted by the service; what was typed meanwhile stays. */
  sent(text) {
    const value = this.field.value;
    this.field.value = value.trimStart().startsWith(text) ? value.trimStart().slice(text.length).trimStart() : value;
    this.save();
    this.field.dispatchEvent(new Event("draft"));
  }
}
