// Elements and words. Whatever a producer wrote only ever becomes text nodes.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Have a node say `text`, and be hidden when that is nothing. */
export function say(node, text) {
  node.textContent = text ?? "";
  node.hidden = !text;
}

/** Have a node say a run's status. */
export function sayStatus(node, status) {
  node.dataset.status = status;
  node.textContent = status.replaceAll("_", " ");
}

export function json(value, most = 8000, indent = 2) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, indent);
  return text.length > most ? `${text.slice(0, most)}… (${text.length - most} more characters)` : text;
}

export function duration(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return age(ms);
}

function age(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 86_400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

/** A time that says how far away it is, and goes on saying it. */
export function ticking(at, word = "") {
  const node = el("time", { datetime: at, title: new Date(at).toLocaleString(), "data-word": word });
  tick(node);
  return node;
}

function tick(node) {
  const ms = Date.now() - Date.parse(node.dateTime);
  const { word } = node.dataset;
  node.textContent = word === "in" ? `in ${age(-ms)}` : `${word} ${age(ms)} ago`.trim();
}

setInterval(() => document.querySelectorAll("time[data-word]").forEach(tick), 1000);
