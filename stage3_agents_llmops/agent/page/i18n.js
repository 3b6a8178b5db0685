// English and Chinese: t("key", {n: 3}) gives a text, data-t="key" and data-t-ATTRIBUTE="key" fill the HTML.
import { en } from "./words.en.js";
import { zh } from "./words.zh.js";
import { remember, remembered } from "./storage.js";

export const WORDS = { en, zh };
const TAGS = { en: "en", zh: "zh-CN" };
const ATTRIBUTES = ["aria-label", "title", "placeholder"];

let current = "en";
const listeners = new Set();

/** "en" or "zh". */
export const language = () => current;

/** The text of a key in the current language; the key itself when nobody wrote one. */
export function t(key, values = {}) {
  const text = WORDS[current][key] ?? WORDS.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** A name that the service sends (`node_`, `intent_`, `slot_`...): its text, or the name with spaces. */
export function named(prefix, name) {
  const key = `${prefix}_${name}`;
  return key in WORDS.en
    ? t(key)
    : String(name ?? "")
        .replaceAll("_", " ")
        .trim();
}

/** Call when the language changes. */
export const onLanguage = (listener) => listeners.add(listener);

/** Remembered choice first, then what the browser asks for. */
export function startLanguage() {
  const browser = navigator.language?.toLowerCase().startsWith("zh") ? "zh" : "en";
  setLanguage(remembered("language", browser));
}

export function setLanguage(name) {
  current = name in WORDS ? name : "en";
  remember("language", current);
  document.documentElement.lang = TAGS[current];
  translate(document);
  listeners.forEach((listener) => listener(current));
}

/** Fill in every marked element below `root`. */
export function translate(root) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const name of ATTRIBUTES) {
    for (const node of root.querySelectorAll(`[data-t-${name}]`)) {
      node.setAttribute(name, t(node.getAttribute(`data-t-${name}`)));
    }
  }
}

/** Two buttons, pressed or not: English and 中文. */
export function bindLanguageButtons(buttons) {
  const show = () => buttons.forEach((button) => button.setAttribute("aria-pressed", button.value === current));
  buttons.forEach((button) => button.addEventListener("click", () => setLanguage(button.value)));
  onLanguage(show);
  show();
}
