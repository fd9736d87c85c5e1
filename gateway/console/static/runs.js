// Runs, newest first, each with its status as it is now; the dead letters among them on a page of their own.

import { BulkBar } from "./bulk.js";
import { hearFeed } from "./feed.js";
import { Filters, toQuery } from "./filters.js";
import { call } from "./session.js";
import { duration, Empty, ErrorText, html, nameOf, Status, Ticking, useEffect, useRef, useState } from "./ui.js";

const LISTED = 50;
// A list is read again so much after a change at the soonest.
const SETTLE_MS = 700;

/** The runs that the address asks for: `page`, `error`, and `load` to read them again. */
function useRuns(asked, dead) {
  const [page, setPage] = useState(null);
  const [error, setError] = useState(null);
  const query = toQuery(asked, dead);
  const state = useRef({}).current;
  async function load() {
    state.stale = false;
    const turn = (state.turn = {});
    try {
      const read = await call("GET", `runs${dead ? "/dlq" : ""}?${query}${query && "&"}limit=${LISTED}`);
      if (turn !== state.turn) return;
      for (const run of read.data) run.seq = run.head_seq;
      setPage(read);
      setError(null);
    } catch (refusal) {
      if (turn !== state.turn) return;
      setError(refusal.message);
      // What the gateway refuses it will refuse again; what got no answer may get one.
      if (!refusal.status) later();
    }
  }
  const later = () => {
    state.timer ??= setTimeout(() => {
      state.timer = null;
      load();
    }, SETTLE_MS);
  };
  useEffect(() => {
    load();
    const forget = hearFeed((event) => {
      if (event) setPage((seen) => seen && changed(seen, event));
      // On a later page nothing comes in at the top.
      if (!asked.get("cursor") || !event) later();
    });
    return () => {
      forget();
      state.turn = null;
      clearTimeout(state.timer);
      state.timer = null;
    };
  }, [query, dead]);
  return { page, error, load };
}

/** A page on which one run stands as the feed says. */
function changed(page, { run_id: id, data: { status, run_seq: seq } }) {
  if (!page.data.some((run) => run.id === id && run.seq < seq)) return page;
  return { ...page, data: page.data.map((run) => (run.id === id ? { ...run, status, seq } : run)) };
}

export function RunsPage({ asked, dead }) {
  const { page, error, load } = useRuns(asked, dead);
  const [picked, setPicked] = useState(new Set());
  const runs = page?.data ?? [];
  const here = runs.filter(({ id }) => picked.has(id));
  const pick = (ids, on) => setPicked(new Set([...picked].filter((id) => !ids.includes(id)).concat(on ? ids : [])));
  const cursor = asked.get("cursor");
  const at = (next) => {
    const address = new URLSearchParams(asked);
    if (next) address.set("cursor", next);
    else address.delete("cursor");
    return `#${address}`;
  };
  return html`<h1>${dead ? "Dead letters" : "Runs"}</h1>
    <${Filters} asked=${asked} dead=${dead} />
    <${ErrorText} error=${error} part="list-error" />
    ${runs.length > 0 && html`<div class="listbar">
      <label class="check all"><input type="checkbox" id="pick-all" checked=${here.length === runs.length}
        indeterminate=${here.length > 0 && here.length < runs.length}
        onChange=${({ target }) => pick(runs.map(({ id }) => id), target.checked)} /> All on this page</label>
      <${BulkBar} runs=${here} dead=${dead} query=${toQuery(asked, dead)} onDone=${() => { setPicked(new Set()); load(); }} />
    </div>`}
    <ol id="runs" class="runs">${runs.map((run) => html`<${Row} key=${run.id} run=${run} picked=${picked.has(run.id)} pick=${pick} />`)}</ol>
    ${page && !runs.length && html`<${Nothing} dead=${dead} filtered=${toQuery(asked, dead) !== ""} />`}
    ${!page && !error && html`<p class="hint" role="status">Reading…</p>`}
    <nav class="pager" aria-label="Pages of the list">
      ${cursor && html`<a href=${at(null)} id="newest">Newest</a>`}
      ${page?.next_cursor && html`<a href=${at(page.next_cursor)} id="older">Older</a>`}
    </nav>`;
}

function Nothing({ dead, filtered }) {
  if (filtered) return html`<${Empty}>No run fits. <a href=${dead ? "#page=dlq" : "#"}>Show all</a> or ask for less.<//>`;
  if (dead) return html`<${Empty}>No dead letters: no run of an agent that keeps them has failed for good.<//>`;
  return html`<${Empty}><span id="no-runs">No run yet. Start one: <code>gateway exec -- ls -l</code></span><//>`;
}

function Row({ run, picked, pick }) {
  const took = run.started_at && run.ended_at ? Date.parse(run.ended_at) - Date.parse(run.started_at) : null;
  return html`<li data-id=${run.id}>
    <input type="checkbox" checked=${picked} aria-label=${`Pick ${nameOf(run)}`} onChange=${({ target }) => pick([run.id], target.checked)} />
    <a href=${`#run=${encodeURIComponent(run.id)}`}>
      <span class="title">${nameOf(run)}</span>
      <span class="about"><${Status} status=${run.status} /> <span class="who">${run.agent_id}</span>
        ${run.error?.message && html`<span class="why">${run.error.code}: ${run.error.message}</span>`}
        <span class="when">${run.attempt > 1 && html`<span>attempt ${run.attempt}</span>`}
          ${took === null ? "" : html`<span>took ${duration(took)}</span>`}<${Ticking} at=${run.created_at} /></span></span>
    </a>
  </li>`;
}
