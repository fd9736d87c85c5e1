// Queues and workers, agents, and every question that waits.

import { hearFeed } from "./feed.js";
import { QuestionCard } from "./questions.js";
import { call } from "./session.js";
import { count, duration, Empty, ErrorText, html, Ticking, useEffect, useLoaded, useState } from "./ui.js";

const LOOK_MS = 2000;
const HELD = ["dequeued", "running", "waiting_for_input", "paused", "cancelling"];

function Table({ caption, heads, rows }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table>
    <caption class="unseen">${caption}</caption>
    <thead><tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr></thead>
    <tbody>${rows}</tbody>
  </table></div>`;
}

export function QueuesPage() {
  const { value, error } = useLoaded(async () => {
    const [queues, held] = await Promise.all([
      call("GET", "queues?limit=100"),
      call("GET", `runs?limit=100&${HELD.map((status) => `status=${status}`).join("&")}`),
    ]);
    return { queues: queues.data, rest: queues.has_more, workers: groupWorkers(held.data), more: held.has_more };
  }, [], LOOK_MS);
  return html`<h1>Queues</h1>
    <${ErrorText} error=${error} />
    ${value && (value.queues.length
      ? html`<${Table} caption="Queues" heads=${["Queue", "Waiting", "Held", "Oldest waits"]}
          rows=${value.queues.map((queue) => html`<tr data-queue=${queue.name}>
            <th scope="row"><code>${queue.name}</code></th><td>${count(queue.waiting)}</td><td>${count(queue.held)}</td>
            <td>${queue.oldest_queued_at ? html`<${Ticking} at=${queue.oldest_queued_at} word="for" />` : "nothing waits"}</td>
          </tr>`)} />`
      : html`<${Empty}>No queue yet: one appears with its first run. Create one with <code>"mode": "queued"</code>.<//>`)}
    ${value?.rest && html`<p class="hint">The first 100 queues by name.</p>`}
    <h2 class="second">Workers</h2>
    ${value && (value.workers.length
      ? html`<${Table} caption="Workers" heads=${["Worker", "Holds", "Last heard of", "Oldest claim", "Next lease ends"]}
          rows=${value.workers.map((worker) => html`<tr data-worker=${worker.name}>
            <th scope="row">${worker.name}</th>
            <td>${worker.runs.map((run) => html`<a href=${`#run=${run.id}`}>${run.title || run.agent_id}</a> `)}</td>
            <td>${worker.heard ? html`<${Ticking} at=${worker.heard} />` : "–"}</td>
            <td><${Ticking} at=${worker.claimed} /></td>
            <td><${Ticking} at=${worker.expires} word="in" /></td>
          </tr>`)} />`
      : html`<${Empty}>No worker holds a run. Start one: it claims runs by <code>POST /v1/claims</code>.<//>`)}
    ${value?.more && html`<p class="hint">Of the workers of the newest 100 runs that are held.</p>`}`;
}

/** Who holds runs, told from the leases. */
function groupWorkers(runs) {
  const workers = new Map();
  for (const run of runs.filter(({ lease }) => lease)) {
    const { worker, claimed_at, expires_at } = run.lease;
    const name = worker ?? "(no name)";
    const known = workers.get(name) ?? { name, runs: [], heard: null, claimed: claimed_at, expires: expires_at };
    workers.set(name, known);
    known.runs.push(run);
    if (claimed_at < known.claimed) known.claimed = claimed_at;
    if (expires_at < known.expires) known.expires = expires_at;
    if ((run.heartbeat_at ?? "") > (known.heard ?? "")) known.heard = run.heartbeat_at;
  }
  return [...workers.values()].sort((a, b) => a.name.localeCompare(b.name));
}

export function AgentsPage() {
  const { value, error } = useLoaded(() => call("GET", "agents?limit=100"), [], LOOK_MS * 5);
  return html`<h1>Agents</h1>
    <${ErrorText} error=${error} />
    ${value && (value.data.length
      ? html`<${Table} caption="Agents" heads=${["Agent", "Version", "Runtime", "Queue", "Attempts", "At once", "Run timeout", "Dead letters", "Changed"]}
          rows=${value.data.map((agent) => html`<tr data-agent=${agent.id}>
            <th scope="row"><a href=${`#${new URLSearchParams({ agent_id: agent.id })}`}>${agent.title || agent.id}</a></th>
            <td>${agent.version}</td><td>${agent.runtime}</td><td><code>${agent.queue}</code></td>
            <td>${agent.retry.max_attempts}${agent.retry.max_attempts > 1 ? `, ${agent.retry.backoff}` : ""}</td>
            <td>${agent.max_concurrent ?? "any"}</td>
            <td>${agent.run_timeout_s === null ? "none" : duration(agent.run_timeout_s * 1000)}</td>
            <td>${agent.dead_letter ? "kept" : "no"}</td>
            <td>${agent.updated_at ? html`<${Ticking} at=${agent.updated_at} />` : ""}</td>
          </tr>`)} />`
      : html`<${Empty}>No agent is registered; runs of any agent work with the defaults. Register one: <code>PUT /v1/agents/ID</code>.<//>`)}`;
}

export function InboxPage() {
  const [turn, setTurn] = useState(0);
  useEffect(() => hearFeed(() => setTurn((last) => last + 1)), []);
  const { value, error } = useLoaded(() => call("GET", "requests?status=open&limit=100"), [turn]);
  return html`<h1>Questions</h1>
    <${ErrorText} error=${error} />
    <div class="questions">${value?.data.map((asked) => html`<div key=${`${asked.run_id} ${asked.request_id}`} class="asked">
      <p><a href=${`#run=${asked.run_id}`}>${asked.title || `A run of ${asked.agent_id}`}</a>
        <small class="hint">asks <${Ticking} at=${asked.created_at} /></small></p>
      <${QuestionCard} runId=${asked.run_id} asked=${asked} />
    </div>`)}</div>
    ${value && !value.data.length && html`<${Empty}>Nobody waits for an answer. A run asks by <code>run.waiting_for_input</code>.<//>`}
    ${value?.has_more && html`<p class="hint">These are the first 100; the others follow as these are answered.</p>`}`;
}
