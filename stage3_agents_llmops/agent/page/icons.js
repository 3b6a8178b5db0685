// The few icons that JavaScript draws: strokes on a grid of 20, in the colour of the text.
import { svg } from "./dom.js";

const PATHS = {
  up: "M6 9v8H3V9zM6 9l3.5-6.2c1.4 0 2.2 1 2 2.4L11 8h4.6c1 0 1.7.9 1.5 1.9l-1.1 5.6c-.2.9-.9 1.5-1.8 1.5H6",
  down: "M6 11V3H3v8zM6 11l3.5 6.2c1.4 0 2.2-1 2-2.4L11 12h4.6c1 0 1.7-.9 1.5-1.9L16 4.5c-.2-.9-.9-1.5-1.8-1.5H6",
};

export const icon = (name) =>
  svg("svg", { viewBox: "0 0 20 20", class: "glyph", "aria-hidden": "true" }, svg("path", { d: PATHS[name] }));
