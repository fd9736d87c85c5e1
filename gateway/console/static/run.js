// One run, live: its record says where it stands, its log what it does.

import { Actions } from "./actions.js";
import { Aside } from "./aside.js";
import { hearFeed } from "./feed.js";
import { Log } from "./log.js";
import { QuestionCard } from "./questions.js";
import { RawLog } from "./rawlog.js";
import { call, openRun, runPath } from "./session.js";
import { Text } from "./text.js";
import { copyText, count, duration, ErrorText, html, json, money, nameOf, Status, Ticking, useEffect, useMemo, useState } from "./ui.js";
import { Waterfall } from "./waterfall.js";

// The page is drawn so often at most, however fast events come.
const DRAW_MS = 60;
const AGAIN_MS = 2000;

/** A run as its page needs it: the live handle, its log, its record, and when to draw again. */
class Watched {
  record = null;
  error = null;
  notices = [];
  gone = false;
  last = 0;
  #reading = false;
  #stale = false;
  #timer = null;

  constructor(id, draw) {
    this.id = id;
    this.draw = () => { this.#timer ??= setTimeout(() => { this.#timer = null; if (!this.gone) draw(); }, DRAW_MS); };
    this.log = new Log(id, this.draw);
    this.handle = openRun(id, {
      snapshot: true,
      onEvent: (event) => this.#take(event),
      onState: () => this.#look(),
      onControl: (name, facts) => this.#control(name, facts),
    });
    this.unhear = hearFeed((event) => this.#hear(event));
    this.refresh();
  }

  get state() { return this.handle.state; }

  close() {
    this.gone = true;
    this.handle.close();
    this.unhear();
  }

  #take(event) {
    if (event.seq !== this.last + 1 && this.last) this.#note(`Hole: events ${this.last + 1}–${event.seq - 1} did not come.`);
    this.last = event.seq;
    this.log.take(event);
    if (event.type.startsWith("run.")) this.refresh();
  }

  #look() {
    const { link, head_seq: head, problem } = this.state;
    if (problem && problem.code !== "log_expired") this.error = problem.detail;
    if (link !== this.link && (link === "live" || link === "ended")) this.refresh();
    this.link = link;
    this.log.head = Math.max(this.log.head, head);
    this.draw();
  }

  #control(name, facts) {
    this.last = name === "stream.gap" ? facts.first_seq - 1 : facts.as_of_seq ?? 0;
    if (name === "stream.gap") {
      this.log.first = facts.first_seq;
      this.#note(`Gap: events ${facts.requested}–${facts.first_seq - 1} are no longer in the log.`);
    } else if (name === "stream.reset") {
      this.log.forget();
      this.#note(`Reset (${facts.reason}): the log is not the one shown before; this is it as it is now.`);
    }
  }

  #note(text) { if (!this.notices.includes(text)) this.notices = [...this.notices, text].slice(-5); }

  /** A run that has ended may begin again: then so does what is shown. */
  #hear(event) {
    if (event && event.run_id !== this.id) return;
    if (this.link === "ended" && (!event || event.data.run_seq > this.state.as_of_seq)) this.handle.reconnect();
  }

  /** Read the record, and once more if something has happened meanwhile. */
  async refresh() {
    this.#stale = true;
    if (this.#reading) return;
    this.#reading = true;
    try {
      while (this.#stale && !this.gone) {
        this.#stale = false;
        this.show(await call("GET", runPath(this.id)));
      }
    } catch (error) {
      if (!error.status) setTimeout(() => this.refresh(), AGAIN_MS);
      else this.error = error.message;
      this.draw();
    }
    this.#reading = false;
  }

  show(record) {
    this.record = record;
    this.log.head = Math.max(this.log.head, record.head_seq);
    if (record.first_seq > this.log.first) {
      this.#note(`Gap: events ${this.log.first}–${record.first_seq - 1} are no longer in the log.`);
      this.log.first = record.first_seq;
    }
    if (record.log_expired) this.#note("The run's log has been removed after its retention.");
    document.title = `${record.status.replaceAll("_", " ")} · ${nameOf(record)}`;
    this.draw();
  }
}

export function RunPage({ id }) {
  const [version, setVersion] = useState(0);
  const watched = useMemo(() => new Watched(id, () => setVersion((last) => last + 1)), [id]);
  useEffect(() => () => watched.close(), [watched]);
  const { record, state, log, notices, error } = watched;
  // The state changes in place: what shows it is told by `version` that it has.
  if (!record) return html`<p><a href="#">← All runs</a></p>${error
    ? html`<h1>No run to show</h1><${ErrorText} error=${error} part="error" />
      <p class="hint">Look whether its id is whole. Finished runs are removed after their retention, and a key sees its own tenant's runs only.</p>`
    : html`<p class="hint" role="status">Reading…</p>`}`;
  return html`<article class="run">
    <p class="back"><a href="#">← All runs</a></p>
    <h1 data-part="title" title=${nameOf(record)}>${nameOf(record)}</h1>
    <${Facts} record=${record} state=${state} notices=${notices} version=${version} />
    <${Actions} run=${record} onRun=${(run) => (run.id === id ? watched.show(run) : (location.hash = `run=${run.id}`))} />
    <${ErrorText} error=${error} part="error" />
    <div class="notices" data-part="notices" role="status">${notices.map((text) => html`<p>${text}</p>`)}</div>
    <div class="questions" data-part="questions" aria-live="polite">${record.open_requests.map((asked) => html`
      <${QuestionCard} key=${asked.request_id} runId=${id} asked=${asked} />`)}</div>
    <div class="columns">
      <div class="wide">
        <${Outcome} run=${record} />
        <${Text} state=${state} follows=${!record.ended_at} version=${version} />
        <${Waterfall} state=${state} record=${record} version=${version} />
        <${RawLog} log=${log} version=${version} />
      </div>
      <${Aside} run=${record} state=${state} version=${version} />
    </div>
  </article>`;
}

/** Say how far this page is to be believed. */
export function linkWords(state, notices) {
  const link = state.link.replaceAll("_", " ");
  const behind = state.link === "catching_up" && state.behind ? ` ${count(state.behind)}` : "";
  const marks = ["Gap", "Reset", "Hole", "The run's log"].filter((word) => notices.some((text) => text.startsWith(word)));
  const said = marks.map((word) => ({ Gap: "gap", Reset: "reset", Hole: "hole" })[word] ?? "log expired");
  return [link + behind, ...said].join(" · ");
}

function Facts({ record, state, notices }) {
  const { usage, started_at: started, ended_at: ended, created_at: created } = record;
  // Between two looks at the record the log knows better what was spent.
  const spent = state.totals.prompt_tokens + state.totals.completion_tokens >= usage.prompt_tokens + usage.completion_tokens ? state.totals : usage;
  const tokens = spent.prompt_tokens + spent.completion_tokens;
  const isGone = state.link === "failed" && state.problem?.code === "log_expired";
  const source = record.retry_of ?? record.replay_of;
  return html`<p class="facts">
    <${Status} status=${record.status} part="status" />
    <span class="link" role="status" data-part="link" data-state=${isGone ? "ended" : state.link.replaceAll("_", " ")}>
      ${isGone ? linkWords({ link: "ended" }, notices) : linkWords(state, notices)}</span>
    <span data-part="attempt">attempt ${record.attempt}${record.retry?.max_attempts > 1 ? ` of ${record.retry.max_attempts}` : ""}</span>
    <span data-part="age"><${Ticking} at=${started ?? created} word=${started ? "started" : "created"} />${started && ended
      ? `, took ${duration(Date.parse(ended) - Date.parse(started))}` : ""}</span>
    <span data-part="tokens" title=${`${count(spent.prompt_tokens)} in, ${count(spent.completion_tokens)} out`}>${count(tokens)} tokens</span>
    <span data-part="cost">${money(spent.cost_microusd)}</span>
    <span data-part="agent">agent ${record.agent_id}</span>
    ${record.lease?.worker && html`<span>held by ${record.lease.worker}</span>`}
    ${record.next_retry_at && html`<span><${Ticking} at=${record.next_retry_at} word="in" /> the next attempt</span>`}
    <span class="id"><code data-part="id">${record.id}</code>
      <button type="button" class="plain" data-copy="id" aria-label="Copy the run's id" onClick=${() => copyText(record.id)}>Copy</button></span>
    ${source && html`<a data-part="source" href=${`#run=${source}`}>${record.retry_of ? "retry" : "replay"} of ${source}</a>`}
  </p>`;
}

function Outcome({ run: { status, error, output } }) {
  const given = error ? error.details : output;
  const nothing = given === undefined || given === null;
  if (!error && nothing) return null;
  return html`<section data-part="outcome" data-status=${status}><h2>Outcome</h2>
    ${error && html`<p class="reason">${error.code}: ${error.message}</p>`}
    ${!nothing && html`<pre tabindex="0">${json(given)}</pre>`}</section>`;
}
