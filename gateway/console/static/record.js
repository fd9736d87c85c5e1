// A run's record on its page: where it stands, what may be done, what it asks, how it ended.

import { call, runPath } from "./api.js";
import { duration, json, say, sayStatus, ticking } from "./dom.js";
import { questionCard } from "./question.js";

const VERBS = {
  delayed: ["cancel"],
  queued: ["pause", "cancel"],
  dequeued: ["pause", "cancel"],
  running: ["pause", "cancel"],
  waiting_for_input: ["pause", "cancel"],
  paused: ["resume", "cancel"],
  cancelling: [],
  completed: [],
};
const AFTER_FAILURE = ["retry"];
const AGAIN_MS = 2000;

export class Record {
  #id;
  #part;
  #failed;
  #questions = new Map();
  #reading = false;
  #stale = false;
  #closed = false;

  /** `part(name)` finds a part of the page; `failed` is told what reading again will not mend. */
  constructor(id, part, failed) {
    this.#id = id;
    this.#part = part;
    this.#failed = failed;
    part("id").textContent = id;
    part("actions").addEventListener("click", ({ target }) => target.dataset.verb && this.#act(target));
    this.refresh();
  }

  close() {
    this.#closed = true;
  }

  /** Read the record, and once more if something has happened meanwhile. */
  async refresh() {
    this.#stale = true;
    if (this.#reading) return;
    this.#reading = true;
    try {
      while (this.#stale && !this.#closed) {
        this.#stale = false;
        this.#render(await call("GET", runPath(this.#id)));
      }
    } catch (error) {
      if (error.passing) setTimeout(() => this.refresh(), AGAIN_MS);
      else if (!this.#closed) this.#failed(error);
    }
    this.#reading = false;
  }

  #render(run) {
    if (this.#closed) return;
    const part = this.#part;
    say(part("title"), run.title || `A run of ${run.agent_id}`);
    sayStatus(part("status"), run.status);
    document.title = `${part("status").textContent} · ${part("title").textContent}`;
    part("attempt").textContent = `attempt ${run.attempt}`;
    part("agent").textContent = `agent ${run.agent_id}`;
    const source = run.retry_of ?? run.replay_of;
    say(part("source"), source && `${run.retry_of ? "retry" : "replay"} of ${source}`);
    if (source) part("source").href = `#run=${source}`;
    this.#tellAge(run);
    this.#offer(VERBS[run.status] ?? AFTER_FAILURE);
    this.#ask(run.open_requests);
    this.#conclude(run);
  }

  #tellAge({ created_at: created, started_at: started, ended_at: ended }) {
    const took = started && ended ? `, took ${duration(Date.parse(ended) - Date.parse(started))}` : "";
    this.#part("age").replaceChildren(started ? ticking(started, "started") : ticking(created, "created"), took);
  }

  #offer(verbs) {
    const buttons = [...this.#part("actions").children];
    const focused = buttons.find((button) => button === document.activeElement);
    for (const button of buttons) button.hidden = !verbs.includes(button.dataset.verb);
    if (focused?.hidden) (buttons.find((button) => !button.hidden) ?? this.#part("title")).focus();
  }

  #ask(requests) {
    const open = new Set(requests.map((asked) => asked.request_id));
    for (const [id, card] of this.#questions) {
      if (open.has(id)) continue;
      card.remove();
      this.#questions.delete(id);
    }
    for (const asked of requests) {
      if (this.#questions.has(asked.request_id)) continue;
      const card = questionCard(this.#id, asked);
      this.#questions.set(asked.request_id, card);
      this.#part("questions").append(card);
    }
  }

  #conclude({ status, error, output }) {
    const section = this.#part("outcome");
    const [reason, value] = [section.querySelector(".reason"), section.querySelector("pre")];
    const given = error ? error.details : output;
    section.dataset.status = status;
    say(reason, error && `${error.code}: ${error.message}`);
    say(value, given === undefined || given === null ? "" : json(given));
    section.hidden = reason.hidden && value.hidden;
  }

  async #act(button) {
    say(this.#part("error"), null);
    button.disabled = true;
    try {
      const run = await call("POST", runPath(this.#id, button.dataset.verb));
      if (run.id === this.#id) this.#render(run);
      else location.hash = `run=${run.id}`;
    } catch (error) {
      say(this.#part("error"), error.message);
    }
    button.disabled = false;
  }
}
