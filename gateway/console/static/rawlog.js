// The event log, as it is: searched, filtered, copied.

import { clock, copyText, count, ErrorText, html, json, useEffect, useRef, useState } from "./ui.js";
import { VirtualList } from "./virtual.js";

const KINDS = [["", "Everything"], ["log", "Log lines"], ["message.*", "Messages"], ["step.*,tool.*", "Steps and tools"], ["run.*", "The run"], ["custom.*", "Custom"]];
const ROW_PX = 26;

export function RawLog({ log, version }) {
  const [types, setTypes] = useState("");
  const [text, setText] = useState("");
  const [open, setOpen] = useState(null);
  const [copied, setCopied] = useState("");
  const timer = useRef();
  useEffect(() => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => log.filter(types, text.trim()), text ? 200 : 0);
    return () => clearTimeout(timer.current);
  }, [types, text]);
  async function copy(what, whole) {
    await copyText(await whole);
    setCopied(`${what} copied.`);
  }
  const shown = open === null ? null : log.found?.find(({ seq }) => seq === open) ?? log.events.get(open);
  const searching = log.found && log.scanned < log.head;
  return html`<section data-part="raw" class="raw" aria-label="Event log">
    <h2>Event log <span class="hint range">${rangeOf(log)}</span></h2>
    <div class="tools">
      <input type="search" aria-label="Search the log" placeholder="Search" value=${text} onInput=${({ target }) => setText(target.value)} />
      <select aria-label="Kinds of events" value=${types} onChange=${({ target }) => setTypes(target.value)}>
        ${KINDS.map(([value, title]) => html`<option value=${value} selected=${value === types}>${title}</option>`)}</select>
      <button type="button" data-copy="all" onClick=${() => copy(log.found ? "What was found is" : "The log is", log.text())}>Copy</button>
      <span class="hint" role="status">${searching ? `Searched ${count(log.scanned)} of ${count(log.head)}…` : copied}</span>
    </div>
    <${ErrorText} error=${log.error} />
    ${log.found && !log.found.length && !searching && html`<p class="hint">No event fits. Search for less, or for everything.</p>`}
    <${VirtualList} key=${log.found ? "found" : "all"} total=${log.total} rowPx=${ROW_PX} label="Event log" follow=${true} version=${version}
      onSeen=${(first, last) => log.need(first, last)} onPick=${(index) => setOpen(log.seqAt(index))}
      onKey=${(press, index) => press.key === "c" && index >= 0 && log.at(index) && copy("The event is", json(log.at(index), Infinity))}
      picked=${shown && !log.found ? shown.seq - log.first : -1}
      rowKey=${(index) => log.seqAt(index)} row=${(index) => html`<${Line} event=${log.at(index)} seq=${log.seqAt(index)} />`} />
    ${shown && html`<div class="detail" data-part="event">
      <div class="tools"><b>${shown.seq} ${shown.type}</b>
        <button type="button" data-copy="one" onClick=${() => copy("The event is", json(shown, Infinity))}>Copy</button>
        <button type="button" onClick=${() => setOpen(null)}>Close</button></div>
      <pre tabindex="0">${json(shown, 100_000)}</pre></div>`}
  </section>`;
}

function rangeOf(log) {
  if (log.found) return `${count(log.found.length)} found`;
  return log.total ? `${log.first}–${log.head}` : "";
}

function Line({ event, seq }) {
  if (!event) return html`<b data-seq=${seq}>${seq}</b><span class="hint">…</span>`;
  const level = event.type === "log" ? event.data?.level : null;
  const said = event.type === "log" ? `${level} ${event.data?.message}` : json(event.data ?? "", 400, 0);
  return html`<b data-seq=${event.seq} data-here="">${event.seq}</b><time>${clock(event.created_at)}</time><i>${event.type}</i>
    <code data-level=${level}>${json(said, 400, 0)}</code>`;
}
