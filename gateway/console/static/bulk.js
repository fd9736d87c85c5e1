// Many runs at once: what will happen is said first, how far it has come while it does, and what did not work at the end.

import { call, lines } from "./session.js";
import { count, Dialog, ErrorText, html, useRef, useState } from "./ui.js";

// So many runs a request, so that progress is seen.
const PORTION = 20;
const FAILURES = 100;

const KINDS = {
  cancel: {
    title: "Cancel",
    says: (what) => `${what} will be cancelled. A run that somebody executes has ten seconds to confirm; the others end at once.`,
    path: "runs/bulk-cancel",
  },
  "cancel-all": { title: "Cancel all", path: "runs/bulk-cancel-all",
    says: (what, query) => `${what}${query ? " that fits these filters and" : " that"} has not ended will be cancelled, also those on other pages.` },
  replay: { title: "Replay", path: "runs/bulk-replay",
    says: (what) => `${what} will be run once more, each as a new run with the same input. The old ones stay as they are.` },
  "dlq-replay": { title: "Queue again", path: "runs/bulk-dlq-replay",
    says: (what) => `${what} will be queued again: the same run, its first attempt.` },
  "dlq-replay-all": { title: "Queue all again", path: "runs/bulk-dlq-replay",
    says: (what, query) => `${what}${query ? " that fits these filters" : ""} will be queued again, also those on other pages.` },
};

export function BulkBar({ runs, dead, query, onDone }) {
  const [kind, setKind] = useState(null);
  const one = runs.length === 1 ? "1 run" : `${runs.length} runs`;
  const button = (name, title) => html`<button type="button" data-bulk=${name} onClick=${() => setKind(name)}>${title}</button>`;
  return html`<div class="bulk" role="group" aria-label="Many at once">
    ${runs.length > 0 && html`<span>${one} picked</span> ${dead ? button("dlq-replay", "Queue again") : html`${button("cancel", "Cancel")} ${button("replay", "Replay")}`}`}
    <span class="every">${dead ? button("dlq-replay-all", query ? "Queue all that fit again" : "Queue all again") : button("cancel-all", query ? "Cancel all that fit" : "Cancel all runs")}</span>
    ${kind && html`<${BulkDialog} kind=${kind} runs=${runs} query=${query} onClose=${(done) => { setKind(null); if (done) onDone(); }} />`}
  </div>`;
}

/** Yield each run's result. */
async function* act(kind, ids, query) {
  const { path } = KINDS[kind];
  if (kind.endsWith("-all")) {
    const filters = new URLSearchParams(query);
    filters.delete("cursor");
    for await (const line of lines(`${path}?${filters}`, {})) {
      if (line.error) throw new Error(line.error.detail);
      if (line.result) yield line.result;
    }
    return;
  }
  for (let at = 0; at < ids.length; at += PORTION) {
    yield* (await call("POST", path, { run_ids: ids.slice(at, at + PORTION) })).results;
  }
}

function BulkDialog({ kind, runs, query, onClose }) {
  const [told, setTold] = useState(null);
  const [error, setError] = useState(null);
  const ids = useRef(runs.map(({ id }) => id)).current;
  const all = kind.endsWith("-all");
  async function go() {
    const sofar = { done: 0, failed: [], over: false };
    setTold({ ...sofar });
    let shown = 0;
    try {
      for await (const result of act(kind, ids, query)) {
        sofar.done++;
        if (result.error) sofar.failed.push(result);
        if (performance.now() - shown < 50) continue;
        shown = performance.now();
        setTold({ ...sofar });
      }
    } catch (refusal) {
      setError(refusal.message);
    }
    setTold({ ...sofar, over: true });
  }
  const what = all ? (kind.startsWith("dlq") ? "Every dead letter" : "Every run") : ids.length === 1 ? "1 run" : `${ids.length} runs`;
  const done = told?.over;
  return html`<${Dialog} title=${KINDS[kind].title} onClose=${() => onClose(told)}>
    ${!told && html`<p>${KINDS[kind].says(what, query)}</p>`}
    ${told && html`<progress aria-label="Progress" max=${all ? (done ? 1 : undefined) : ids.length} value=${all ? (done ? 1 : undefined) : told.done}></progress>
      <p role="status" data-part="bulk-told">${count(told.done)}${all ? "" : ` of ${count(ids.length)}`} done${told.failed.length ? `, ${count(told.failed.length)} refused` : ""}${done ? "." : "…"}</p>
      ${told.failed.length > 0 && html`<ul class="failures">${told.failed.slice(0, FAILURES).map(({ id, error: why }) => html`<li>
        <a href=${`#run=${id}`}><code>${id}</code></a> ${why.detail}</li>`)}</ul>`}`}
    <${ErrorText} error=${error} />
    <div class="buttons">
      ${!told && html`<button type="button" class="main" data-confirm onClick=${go}>${KINDS[kind].title}</button>`}
      <button type="button" data-close onClick=${() => onClose(told)}>${told ? "Close" : "Leave as it is"}</button>
    </div>
  <//>`;
}
