// Elements and words. Whatever a producer wrote only ever becomes text nodes and attributes.

import htm from "./vendor/htm.js";
import { h, render } from "./vendor/preact.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { computed, signal } from "./vendor/signals.js";

export const html = htm.bind(h);
export { computed, render, signal, useEffect, useMemo, useRef, useState };

const words = (text) => String(text ?? "").replaceAll("_", " ");

/** A status in words, with a dot in its colour. */
export const Status = ({ status, part }) =>
  html`<span class="status" data-part=${part} data-status=${status}>${words(status)}</span>`;

export const ErrorText = ({ error, part }) => error && html`<p class="error" role="alert" data-part=${part}>${error}</p>`;

/** What stands where there is nothing: why, and what to do next. */
export const Empty = ({ children }) => html`<p class="hint empty">${children}</p>`;

/** What a state of bounded size says when it left the oldest entries out. */
export const Dropped = ({ state: { kept_from_seq: from } }) =>
  from > 1 && html`<p class="hint">What began before event ${count(from)} is in the event log only.</p>`;

export const nameOf = (run) => run.title || `A run of ${run.agent_id}`;

export function json(value, most = 8000, indent = 2) {
  const text = (typeof value === "string" ? value : JSON.stringify(value, null, indent)) ?? "";
  return text.length > most ? `${text.slice(0, most)}… (${text.length - most} more characters)` : text;
}

export function duration(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : age(ms);
}

export function age(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 86_400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

export const bytes = (count) =>
  count < 1024 ? `${count} B` : count < 1024 ** 2 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / 1024 ** 2).toFixed(1)} MiB`;

export const count = (number) => number.toLocaleString("en");
export const money = (microusd) => `$${microusd ? (microusd / 1e6).toFixed(microusd < 10_000 ? 4 : 2) : 0}`;
export const clock = (at) => at.slice(11, 23);

const now = signal(Date.now());
setInterval(() => { if (!document.hidden) now.value = Date.now(); }, 1000);

/** A time that says how far away it is, and goes on saying it. */
export function Ticking({ at, word = "" }) {
  const ms = now.value - Date.parse(at);
  const text = ["in", "within"].includes(word) ? `${word} ${age(-ms)}` : word === "for" ? `for ${age(ms)}` : `${word} ${age(ms)} ago`.trim();
  return html`<time datetime=${at} title=${new Date(at).toLocaleString()}>${text}</time>`;
}

/** Return what `load` resolves to, again after each change of `inputs`, and what went wrong. */
export function useLoaded(load, inputs, everyMs = 0) {
  const [loaded, setLoaded] = useState({ value: null, error: null });
  useEffect(() => {
    let gone = false, timer;
    const look = async () => {
      if (!document.hidden) {
        try {
          const value = await load();
          if (!gone) setLoaded({ value, error: null });
        } catch (error) {
          if (!gone) setLoaded((before) => ({ ...before, error: error.message }));
        }
      }
      if (everyMs && !gone) timer = setTimeout(look, everyMs);
    };
    look();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, inputs);
  return loaded;
}

/** A dialog that has the focus while it is there. */
export function Dialog({ title, onClose, children }) {
  const box = useRef();
  useLayoutEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  const leave = (event) => {
    if (event.type === "keydown" && event.key !== "Escape") return;
    event.preventDefault();
    onClose();
  };
  return html`<dialog ref=${box} aria-labelledby="dialog-title" onCancel=${leave} onKeyDown=${leave}>
    <h2 id="dialog-title">${title}</h2>
    ${children}
  </dialog>`;
}

export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Outside https and localhost there is no clipboard but this one.
  const area = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  return undefined;
}
