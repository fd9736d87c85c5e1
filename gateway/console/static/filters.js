// What a list is asked for; it lives in the address, so that it can be kept and sent.

import { html, useState } from "./ui.js";

const STATUSES = ["delayed", "queued", "dequeued", "running", "waiting_for_input", "paused", "cancelling", "completed",
  "failed", "cancelled", "timed_out", "crashed", "system_failed", "expired", "dead_letter"];
const TRIGGERS = ["manual", "cron", "spawn", "workflow", "retry", "event"];
// The gateway's name, ours, and what is written there.
const FIELDS = [
  ["agent_id", "Agent", "researcher"],
  ["thread_id", "Thread", ""],
  ["tag", "Tag", "key:value"],
  ["metadata", "Metadata", "key:value"],
  ["payload", "Input contains", '{"topic":"tides"}'],
  ["batch_id", "Batch", ""],
  ["parent_run_id", "Parent run", ""],
];
const TIMES = [["created_after", "Created after"], ["created_before", "Created before"]];
const ALL = ["status", "trigger", "cursor", ...FIELDS.map(([name]) => name), ...TIMES.map(([name]) => name)];

/** The gateway's query of what the address asks for. */
export function toQuery(asked, dead) {
  const query = new URLSearchParams();
  for (const [name, value] of asked) if (ALL.includes(name) && value && !(dead && name === "status")) query.append(name, value);
  return query.toString();
}

export function Filters({ asked, dead }) {
  const [open, setOpen] = useState(false);
  const more = [...FIELDS, ...TIMES, ["trigger"]].filter(([name]) => asked.get(name));
  function go(change) {
    const address = new URLSearchParams(asked);
    address.delete("cursor");
    change(address);
    location.hash = address.toString();
  }
  function submit(event) {
    event.preventDefault();
    const given = new FormData(event.target);
    go((address) => {
      for (const [name, value] of given) {
        const text = value && name.startsWith("created_") ? new Date(value).toISOString() : String(value).trim();
        if (text) address.set(name, text);
        else address.delete(name);
      }
    });
  }
  const toggle = (status, on) => go((address) => {
    const kept = address.getAll("status").filter((other) => other !== status);
    address.delete("status");
    for (const each of on ? [...kept, status] : kept) address.append("status", each);
  });
  const statuses = asked.getAll("status");
  return html`<section class="filters" aria-label="Filters">
    ${!dead && html`<fieldset class="chips"><legend class="unseen">Status</legend>${STATUSES.map((status) => html`<label>
      <input type="checkbox" name="status" value=${status} checked=${statuses.includes(status)}
        onChange=${({ target }) => toggle(status, target.checked)} /><span>${status.replaceAll("_", " ")}</span></label>`)}</fieldset>`}
    <details open=${open || more.length > 0} onToggle=${({ target }) => setOpen(target.open)}>
      <summary>More filters${more.length ? ` (${more.length})` : ""}</summary>
      <form class="grid" onSubmit=${submit} key=${String(asked)}>
        ${FIELDS.map(([name, title, hint]) => html`<label>${title}
          <input name=${name} defaultValue=${asked.get(name) ?? ""} placeholder=${hint} autocomplete="off" spellcheck=${false} /></label>`)}
        <label>Trigger<select name="trigger"><option value="">any</option>
          ${TRIGGERS.map((word) => html`<option selected=${asked.get("trigger") === word}>${word}</option>`)}</select></label>
        ${TIMES.map(([name, title]) => html`<label>${title}
          <input name=${name} type="datetime-local" step="1" defaultValue=${toLocal(asked.get(name))} /></label>`)}
        <div class="buttons"><button class="main">Filter</button>
          <a class="button" href=${dead ? "#page=dlq" : "#"}>Clear</a></div>
      </form>
    </details>
  </section>`;
}

function toLocal(text) {
  const at = new Date(text ?? "");
  if (Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
