// What stands beside a run: its input, attempts, files, family, and who did what to it.

import { call, runPath } from "./session.js";
import { bytes, clock, Empty, ErrorText, html, json, nameOf, Status, Ticking, useLoaded, useState } from "./ui.js";

// What an attempt is remembered by.
const SAID = ["attempt_failed", "restarted", "failed", "timed_out", "crashed", "cancelled", "dead_lettered"];

export function Aside({ run, state, version }) {
  return html`<aside aria-label="About the run">
    <${Attempts} run=${run} state=${state} version=${version} />
    <${Files} state=${state} version=${version} />
    <${Family} run=${run} />
    <${Input} run=${run} />
    <${Audit} state=${state} version=${version} />
  </aside>`;
}

function Attempts({ run, state }) {
  const attempts = new Map();
  const of = (number) => attempts.get(number) ?? attempts.set(number, { number, said: [] }).get(number);
  of(run.attempt);
  for (const { type, at, attempt, reason, seq } of state.history) {
    const entry = of(attempt);
    entry.first ??= seq;
    if (type === "run.started") entry.started = at;
    if (SAID.includes(type.slice(4))) entry.said.push(`${type.slice(4).replaceAll("_", " ")}${reason ? `: ${reason}` : ""}`);
  }
  const withdrawn = new Set([...state.messages, ...state.steps, ...state.tool_calls].filter((entry) => entry.superseded).map((entry) => entry.attempt));
  return html`<section data-part="attempts"><h2>Attempts</h2><ol class="attempts">
    ${[...attempts.values()].sort((a, b) => a.number - b.number).map((entry) => html`<li key=${entry.number} data-attempt=${entry.number} data-withdrawn=${withdrawn.has(entry.number) && entry.number !== run.attempt ? "" : null}>
      <b>Attempt ${entry.number}</b> ${entry.started ? html`<${Ticking} at=${entry.started} word="started" />` : "has not started"}
      ${entry.said.map((text) => html`<small class="hint">${text}</small>`)}</li>`)}
  </ol></section>`;
}

function Files({ state }) {
  const outputs = Object.values(state.outputs);
  return html`<section data-part="files"><h2>Files and outputs</h2>
    ${state.files.length > 0 && html`<ul class="files">${state.files.map((file) => html`<li data-file=${file.file_id} data-withdrawn=${file.superseded ? "" : null}>
      <${File} file=${file} /></li>`)}</ul>`}
    ${outputs.length > 0 && html`<ul class="files">${outputs.map((output) => html`<li data-output=${output.key} data-withdrawn=${output.superseded ? "" : null}>
      <details><summary>${output.key}</summary><pre tabindex="0">${json(output.value)}</pre></details></li>`)}</ul>`}
    ${state.checkpoints.length > 0 && html`<details><summary>Last of ${state.checkpoints.length} checkpoints: ${state.checkpoints.at(-1).source}</summary>
      <pre tabindex="0">${json(state.checkpoints.at(-1).state)}</pre></details>`}
    ${!state.files.length && !outputs.length && !state.checkpoints.length && html`<${Empty}>None yet.<//>`}
  </section>`;
}

/** A file, opened by an address that the gateway signs for a while: a link cannot carry the key. */
function File({ file }) {
  const [error, setError] = useState(null);
  async function open() {
    setError(null);
    try {
      const { url } = await call("GET", `files/${encodeURIComponent(file.file_id)}`);
      const link = Object.assign(document.createElement("a"), { href: url, download: file.name, rel: "noopener" });
      link.click();
    } catch (refusal) {
      setError(refusal.status === 404 ? "The gateway does not keep this file: the run only told of it." : refusal.message);
    }
  }
  return html`<button type="button" class="plain file" onClick=${open}>${file.name}</button>
    <small class="hint">${file.content_type}, ${bytes(file.size_bytes)}</small><${ErrorText} error=${error} />`;
}

function Input({ run }) {
  const tags = Object.entries(run.tags ?? {});
  return html`<section data-part="input"><h2>Input</h2>
    ${run.input === null ? html`<${Empty}>None.<//>` : html`<pre tabindex="0">${json(run.input)}</pre>`}
    ${tags.length > 0 && html`<p class="tags">${tags.map(([name, value]) => html`<a href=${`#${new URLSearchParams({ tag: `${name}:${value}` })}`}>${name}:${value}</a> `)}</p>`}
    ${run.thread_id && html`<p class="hint">Thread <a href=${`#${new URLSearchParams({ thread_id: run.thread_id })}`}>${run.thread_id}</a></p>`}
    ${run.trace_id && html`<p class="hint">Trace <span data-part="trace">${run.trace_id}</span></p>`}
  </section>`;
}

/** The run's family as a tree: retries, replays and children below what they came of. */
function Family({ run }) {
  const { value, error } = useLoaded(async () => {
    const [family, children] = await Promise.all([call("GET", `${runPath(run.id, "lineage")}?limit=100`), call("GET", `${runPath(run.id, "children")}?limit=100`)]);
    const runs = new Map([...family.data, ...children.data, run].map((each) => [each.id, each]));
    return { runs, more: family.has_more || children.has_more };
  }, [run.id, run.status]);
  if (error) return html`<section><h2>Lineage</h2><${ErrorText} error=${error} /></section>`;
  if (!value) return null;
  const { runs, more } = value;
  const from = (each) => [["retry", each.retry_of], ["replay", each.replay_of], ["child", each.parent_run_id]].find(([, id]) => id) ?? [];
  const roots = [...runs.values()].filter((each) => !runs.has(from(each)[1]));
  return html`<section data-part="lineage"><h2>Lineage</h2>
    ${runs.size < 2 ? html`<${Empty}>No retry, replay or child.<//>` : html`<ul class="tree">${roots.reverse().map((root) => html`<${Branch} each=${root} runs=${runs} from=${from} here=${run.id} />`)}</ul>`}
    ${more && html`<p class="hint">And older ones.</p>`}
  </section>`;
}

function Branch({ each, runs, from, here }) {
  const [kind] = from(each);
  const below = [...runs.values()].filter((other) => other.id !== each.id && from(other)[1] === each.id).sort((a, b) => (a.id < b.id ? -1 : 1));
  return html`<li data-run=${each.id}>
    <span class="leaf">${kind && html`<small class="hint">${kind}</small>`}
      <a href=${`#run=${each.id}`} aria-current=${each.id === here ? "page" : null}>${nameOf(each)}</a> <${Status} status=${each.status} /></span>
    ${below.length > 0 && html`<ul>${below.map((other) => html`<${Branch} key=${other.id} each=${other} runs=${runs} from=${from} here=${here} />`)}</ul>`}
  </li>`;
}

function Audit({ state }) {
  const questions = Object.values(state.questions).filter(({ status }) => status === "answered");
  const answers = new Map(questions.map((question) => [question.closed_seq, question]));
  return html`<section data-part="audit"><h2>Audit trail</h2><ol class="audit">
    ${state.history.slice(-200).map(({ seq, type, at, actor, reason }) => html`<li key=${seq} data-seq=${seq}>
      <time datetime=${at} title=${new Date(at).toLocaleString()}>${clock(at)}</time>
      <span>${[type.slice(4).replaceAll("_", " "), answers.has(seq) ? json(answers.get(seq).content, 120, 0) : null, actor?.triggered_by ?? actor?.name ?? actor?.id, reason]
        .filter((word) => word !== null && word !== undefined && word !== "").map((word) => (typeof word === "string" ? word : json(word, 120, 0))).join(" · ")}</span></li>`)}
  </ol></section>`;
}
