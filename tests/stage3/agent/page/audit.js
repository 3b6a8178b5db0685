// An accessibility audit with the browser's own means. Returns a list of problems, each a line that names the element.
// Checks: names and labels (WCAG 4.1.2, 1.3.1), contrast (1.4.3, AA), headings and landmarks (1.3.1), ids, lang (3.1.1),
// target size (2.5.8), sideways scrolling (1.4.10), positive tabindex (2.4.3).
() => {
  const problems = [];
  const label = (node) =>
    `${node.tagName.toLowerCase()}${node.id ? `#${node.id}` : ""}.${node.getAttribute("class") ?? ""} "${(node.textContent ?? "").trim().slice(0, 30)}"`;
  const report = (what, node) => problems.push(`${what}: ${label(node)}`);
  const visible = (node) =>
    node.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && node.getClientRects().length > 0;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(visible);

  const textOf = (id) => document.getElementById(id)?.textContent.trim() ?? "";
  const nameOf = (node) =>
    (node.getAttribute("aria-labelledby") ?? "").split(" ").map(textOf).join(" ").trim() ||
    (node.getAttribute("aria-label") ?? "").trim() ||
    [...(node.labels ?? [])]
      .map((one) => one.textContent.trim())
      .join(" ")
      .trim() ||
    (/^(BUTTON|A|SUMMARY|OPTION)$/.test(node.tagName) ? node.textContent.trim() : "");

  for (const node of all(
    "button, a[href], input, select, textarea, summary, nav, aside, [role=region], [role=group], section",
  )) {
    if (!nameOf(node)) report("no accessible name", node);
  }
  for (const node of all("svg:not([aria-hidden])")) {
    if (node.getAttribute("role") !== "img" || !nameOf(node)) report("a picture without role and name", node);
  }
  for (const node of all("img")) if (!node.hasAttribute("alt")) report("no alt", node);
  for (const node of all("[tabindex]")) if (node.tabIndex > 0) report("positive tabindex", node);
  for (const name of ["aria-controls", "aria-describedby", "aria-labelledby", "for"]) {
    for (const node of document.querySelectorAll(`[${name}]`)) {
      for (const id of node.getAttribute(name).split(" "))
        if (!document.getElementById(id)) report(`${name} leads nowhere`, node);
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  ids.filter((id, index) => ids.indexOf(id) !== index).forEach((id) => problems.push(`id twice: ${id}`));
  if (!/^(en|zh-CN)$/.test(document.documentElement.lang)) problems.push(`lang: ${document.documentElement.lang}`);
  if (document.querySelectorAll("main").length !== 1) problems.push("not exactly one main");
  if (all("h1").length !== 1) problems.push("not exactly one h1");
  let level = 0;
  for (const node of document.querySelectorAll("main h1, main h2, main h3, main h4")) {
    if (!visible(node)) continue;
    const here = Number(node.tagName[1]);
    if (here > level + 1) report(`heading jumps from ${level} to ${here}`, node);
    level = Math.max(here, 1);
  }
  for (const node of all("button:not(:disabled), select, summary")) {
    const { width, height } = node.getBoundingClientRect();
    if (width < 24 || height < 24) report(`target ${Math.round(width)}x${Math.round(height)} px`, node);
  }
  if (document.documentElement.scrollWidth > innerWidth + 1)
    problems.push(`wider than the window: ${document.documentElement.scrollWidth}`);
  for (const node of all("body *")) {
    const { left, right } = node.getBoundingClientRect();
    if ((right > innerWidth + 1 || left < -1) && !node.closest(".skip, .sr-only, .author, svg"))
      report("sticks out", node);
  }

  // ------------------------------------------------------------------------------------------------ contrast
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const luminance = (color) => {
    const [r, g, b] = color
      .slice(0, 3)
      .map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const backdrop = (node) => {
    const layers = [];
    for (let here = node; here; here = here.parentElement) {
      const color = rgba(getComputedStyle(here).backgroundColor);
      layers.push(color);
      if (color[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), rgba("Canvas"));
  };
  const check = (color, below, node, size, bold) => {
    const needed = size >= 24 || (size >= 18.66 && bold) ? 3 : 4.5;
    const found = ratio(over(color, below), below);
    if (found < needed) report(`contrast ${found.toFixed(2)} < ${needed}`, node);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !visible(node) || node.closest("svg, :disabled, .sr-only, [inert]"))
      continue;
    const style = getComputedStyle(node);
    check(rgba(style.color), backdrop(node), node, parseFloat(style.fontSize), Number(style.fontWeight) >= 700);
  }
  for (const node of all("svg .node")) {
    const shape = getComputedStyle(node.querySelector("rect"));
    const fill =
      shape.fill === "none"
        ? backdrop(node.closest("svg").parentElement)
        : over(rgba(shape.fill), backdrop(node.closest("svg").parentElement));
    for (const text of node.querySelectorAll("text:not(.step)"))
      check(rgba(getComputedStyle(text).fill), fill, text, 11, false);
  }
  return [...new Set(problems)];
};
