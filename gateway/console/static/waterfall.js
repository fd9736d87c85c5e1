// Steps and tool calls as bars over time.

import { Dropped, duration, html, json, useEffect, useState } from "./ui.js";
import { VirtualList } from "./virtual.js";

const ROW_PX = 30;
const TICKS = 4;

/** The rows, each step's calls and inner steps behind it, and the span of time they take. */
function lay(state, nowMs) {
  const steps = state.steps.map((step) => ({ entry: step, kind: "step", id: step.step_id, parent: step.parent_id }));
  const calls = state.tool_calls.map((call) => ({ entry: call, kind: "call", id: call.call_id, parent: call.step_id }));
  const all = [...steps, ...calls].sort((a, b) => a.entry.seq - b.entry.seq);
  const known = new Map(steps.map((row) => [`${row.entry.attempt} ${row.id}`, row]));
  const inner = new Map();
  const roots = [];
  for (const row of all) {
    const parent = row.parent && known.get(`${row.entry.attempt} ${row.parent}`);
    if (!parent || parent === row || parent.entry.seq > row.entry.seq) roots.push(row);
    else inner.set(parent, [...(inner.get(parent) ?? []), row]);
  }
  const rows = [];
  const put = (row, depth) => {
    rows.push({ ...row, depth });
    for (const child of inner.get(row) ?? []) put(child, depth + 1);
  };
  for (const row of roots) put(row, 0);
  let [from, to] = [Infinity, -Infinity];
  for (const row of rows) {
    const { started_at: started, ended_at: ended, duration_ms: took } = row.entry;
    row.to = ended ? Date.parse(ended) : nowMs;
    row.from = started ? Date.parse(started) : row.to - (took ?? 0);
    row.took = took ?? row.to - row.from;
    // What is said to have taken longer than it was seen is believed.
    if (took && ended && row.to - row.from < took) row.from = row.to - took;
    from = Math.min(from, row.from);
    to = Math.max(to, row.to);
  }
  return { rows, from, to: Math.max(to, from + 1) };
}

export function Waterfall({ state, record }) {
  const [now, setNow] = useState(Date.now());
  const [zoom, setZoom] = useState({ scale: 1, at: 0.5 });
  const [picked, setPicked] = useState(null);
  const runs = !record.ended_at && [...state.steps, ...state.tool_calls].some((entry) => !entry.ended_at);
  useEffect(() => {
    if (!runs) return undefined;
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [runs]);
  if (!state.steps.length && !state.tool_calls.length) return null;
  const { rows, from, to } = lay(state, Math.max(now, Date.parse(record.updated_at)));
  const span = (to - from) / zoom.scale;
  const left = from + (to - from - span) * zoom.at;
  const to100 = (ms) => ((ms - left) / span) * 100;
  const change = (scale, at = zoom.at) => setZoom({ scale: Math.max(1, Math.min(4096, scale)), at: Math.max(0, Math.min(1, at)) });
  const pan = (by) => change(zoom.scale, zoom.at + by / Math.max(1, zoom.scale - 1));
  function press(event) {
    const does = { "+": () => change(zoom.scale * 2), "=": () => change(zoom.scale * 2), "-": () => change(zoom.scale / 2),
      0: () => change(1, 0.5), ArrowLeft: () => pan(-0.25), ArrowRight: () => pan(0.25) }[event.key];
    if (!does || event.ctrlKey || event.metaKey) return;
    does();
    event.preventDefault();
  }
  const shown = picked && rows.find(({ entry }) => entry.seq === picked)?.entry;
  return html`<section data-part="timeline" aria-label="Timeline"><h2>Timeline <span class="hint">${rows.length} steps and calls in ${duration(to - from)}</span></h2>
    <${Dropped} state=${state} />
    <div class="tools" role="group" aria-label="Zoom">
      <button type="button" data-zoom="in" aria-label="Zoom in" disabled=${zoom.scale >= 4096} onClick=${() => change(zoom.scale * 2)}>+</button>
      <button type="button" data-zoom="out" aria-label="Zoom out" disabled=${zoom.scale <= 1} onClick=${() => change(zoom.scale / 2)}>−</button>
      <button type="button" data-zoom="fit" disabled=${zoom.scale <= 1} onClick=${() => change(1, 0.5)}>Fit</button>
      <button type="button" aria-label="Earlier" disabled=${zoom.scale <= 1 || zoom.at <= 0} onClick=${() => pan(-0.25)}>←</button>
      <button type="button" aria-label="Later" disabled=${zoom.scale <= 1 || zoom.at >= 1} onClick=${() => pan(0.25)}>→</button>
      <span class="hint">${zoom.scale > 1 ? `× ${zoom.scale}` : ""}</span>
    </div>
    <div class="scale" aria-hidden="true"><span></span><span class="ticks">${Array.from({ length: TICKS }, (_, index) => html`
      <i>${duration(left - from + (span * index) / TICKS)}</i>`)}</span></div>
    <div class="timeline" data-rows=${rows.length}>
      <${VirtualList} total=${rows.length} rowPx=${ROW_PX} label="Steps and tool calls" follow=${false} onKey=${press}
        picked=${rows.findIndex(({ entry }) => entry.seq === picked)} onPick=${(index) => setPicked(picked === rows[index].entry.seq ? null : rows[index].entry.seq)}
        rowKey=${(index) => rows[index].entry.seq} row=${(index) => html`<${Bar} row=${rows[index]} to100=${to100} />`} />
    </div>
    ${shown && html`<${Detail} entry=${shown} onClose=${() => setPicked(null)} />`}
  </section>`;
}

function stateOf({ status, error, superseded, ended_at: ended }) {
  if (superseded) return "superseded";
  if (status === "abandoned") return "abandoned";
  if (!ended) return "running";
  return error || ["failed", "error"].includes(status) ? "failed" : "done";
}

function Bar({ row: { entry, kind, depth, from, to, took }, to100 }) {
  const state = stateOf(entry);
  const [start, end] = [Math.max(0, to100(from)), Math.min(100, to100(to))];
  const name = entry.name ?? "(begun before this log)";
  const progress = state === "running" && entry.progress !== null && entry.progress !== undefined ? json(entry.progress, 60, 0) : "";
  const said = { failed: "failed", abandoned: "abandoned", superseded: "abandoned", running: progress || "running" }[state] ?? "";
  return html`<span class="label" data-kind=${kind} data-seq=${entry.seq} data-state=${state} data-withdrawn=${entry.superseded ? "" : null}
      style=${{ paddingLeft: `${Math.min(depth, 6) * 14}px` }}><span class="name">${name}</span></span>
    <span class="bars">${end >= 0 && start <= 100 && html`<span class="bar-line" data-state=${state}
      style=${{ left: `${start}%`, width: `${Math.max(0, end - start)}%` }}></span>`}</span>
    <span class="took">${said && html`<small data-state=${state}>${said}</small> `}${duration(took)}</span>`;
}

function Detail({ entry, onClose }) {
  const parts = [["input", entry.input], ["progress", entry.progress], ["output", entry.output], ["error", entry.error]];
  return html`<div class="detail" data-part="entry">
    <div class="tools"><b>${entry.name ?? "(begun before this log)"}</b> <span class="hint">${entry.status}, event ${entry.seq}, attempt ${entry.attempt}</span>
      <button type="button" onClick=${onClose}>Close</button></div>
    ${parts.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => html`<h3>${name}</h3><pre tabindex="0">${json(value)}</pre>`)}
  </div>`;
}
