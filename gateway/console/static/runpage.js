// One run, live: its record says where it stands, its log what it does.

import { call, runPath } from "./api.js";
import { duration, el, json, say, sayStatus, ticking } from "./dom.js";
import { LinesPane, RawPane, TextPane, Timeline } from "./panes.js";
import { questionCard } from "./question.js";
import { follow } from "./stream.js";

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

export class RunPage {
  #id;
  #refused;
  #stop;
  #run = null;
  #reading = null;
  #notices = [];
  #word = "";

  /** `refused` is told when the key no longer works. */
  constructor(root, id, refused) {
    this.root = root;
    this.#id = id;
    this.#refused = refused;
    this.#build();
    this.#refresh();
    this.#stop = follow(runPath(id, "stream"), {
      events: (events) => this.#take(events),
      control: (name, facts) => this.#warn(name, facts),
      state: (word) => this.#link(word),
      refused: (error) => this.#fail(error),
      check: () => this.#check(),
    });
  }

  close() {
    this.#stop();
    this.closed = true;
  }

  /** Whether the log has gone on after this page read it to its end. */
  isBehind(seq) {
    return this.#word === "ended" && seq > this.last;
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  #build() {
    this.root.replaceChildren(document.getElementById("run-page").content.cloneNode(true));
    this.part("id").textContent = this.#id;
    this.part("actions").addEventListener("click", ({ target }) => target.dataset.verb && this.#act(target));
    this.text = new TextPane(this.part("text"));
    this.timeline = new Timeline(this.part("timeline"));
    this.lines = new LinesPane(this.part("lines"));
    this.raw = new RawPane(this.part("raw"));
    this.questions = new Map();
    this.last = 0;
  }

  /** Read the record, once more if something happened meanwhile. */
  async #refresh() {
    if (this.#reading) return (this.#reading = "again");
    this.#reading = "once";
    try {
      const run = await call("GET", runPath(this.#id));
      if (!this.closed) this.#render(run);
    } catch (error) {
      if (!error.passing) this.#fail(error);
      else setTimeout(() => this.closed || this.#refresh(), AGAIN_MS);
    }
    const again = this.#reading === "again";
    this.#reading = null;
    if (again && !this.closed) this.#refresh();
  }

  #render(run) {
    this.#run = run;
    say(this.part("title"), run.title || `A run of ${run.agent_id}`);
    sayStatus(this.part("status"), run.status);
    document.title = `${this.part("status").textContent} · ${this.part("title").textContent}`;
    this.part("attempt").textContent = `attempt ${run.attempt}`;
    this.part("agent").textContent = `agent ${run.agent_id}`;
    this.#tellAge(run);
    const source = run.retry_of ?? run.replay_of;
    say(this.part("source"), source && `${run.retry_of ? "retry" : "replay"} of ${source}`);
    if (source) this.part("source").href = `#run=${source}`;
    this.#offer(VERBS[run.status] ?? AFTER_FAILURE);
    this.#askAll(run.open_requests);
    this.#tellOutcome(run);
  }

  #tellAge({ created_at: created, started_at: started, ended_at: ended }) {
    const took = started && ended ? `, took ${duration(Date.parse(ended) - Date.parse(started))}` : "";
    this.part("age").replaceChildren(started ? ticking(started, "started") : ticking(created, "created"), took);
  }

  #offer(verbs) {
    const buttons = [...this.part("actions").children];
    const focused = buttons.find((button) => button === document.activeElement);
    for (const button of buttons) button.hidden = !verbs.includes(button.dataset.verb);
    if (focused?.hidden) (buttons.find((button) => !button.hidden) ?? this.part("title")).focus();
  }

  #askAll(requests) {
    const open = new Set(requests.map((asked) => asked.request_id));
    for (const [id, card] of this.questions) {
      if (open.has(id)) continue;
      card.remove();
      this.questions.delete(id);
    }
    for (const asked of requests) {
      if (this.questions.has(asked.request_id)) continue;
      const card = questionCard(this.#id, asked);
      this.questions.set(asked.request_id, card);
      this.part("questions").append(card);
    }
  }

  #tellOutcome({ status, error, output }) {
    const section = this.part("outcome");
    const value = error ? error.details : output;
    section.dataset.status = status;
    say(section.querySelector(".reason"), error && `${error.code}: ${error.message}`);
    say(section.querySelector("pre"), value === undefined || value === null ? "" : json(value));
    section.hidden = [...section.children].every((child) => child.hidden || child.tagName === "H2");
  }

  #take(events) {
    for (const event of events) {
      if (event.seq !== this.last + 1) this.#notice("hole", `Events ${this.last + 1}–${event.seq - 1} did not arrive.`);
      this.last = event.seq;
      this.#show(event);
    }
    this.lines.add(events);
    this.raw.add(events);
    for (const { type, data } of events) if (type === "run.attempt_started") this.#withdraw(data.supersedes);
    if (events.some(({ type }) => type.startsWith("run."))) this.#refresh();
  }

  #show(event) {
    const { type, data } = event;
    const { timeline } = this;
    const [family, word] = type.split(".");
    if (family === "message") this.text.add(event);
    else if (type === "step.started") timeline.begin(`step ${data.step_id}`, data.name, event);
    else if (family === "step") timeline.end(`step ${data.step_id}`, event, word);
    else if (type === "tool.call") timeline.begin(`call ${data.call_id}`, data.name, event);
    else if (type === "tool.progress") timeline.progress(`call ${data.call_id}`, event);
    else if (type === "tool.result") timeline.end(`call ${data.call_id}`, event, data.status);
    else if (type === "checkpoint.created") timeline.note(event, `checkpoint ${data.source}`, data.state);
    else if (type === "output.set") timeline.note(event, `output ${data.key}`, data.value);
    else if (type === "file.created") timeline.note(event, `file ${data.name}`, data);
    else if (family === "run") this.#showChange(event, word);
  }

  #showChange(event, word) {
    const { actor, reason, prompt, content } = event.data;
    const { triggered_by: behalf, name, id } = actor ?? {};
    const said = content === undefined ? prompt : json(content, 200, 0);
    this.timeline.note(event, [word.replaceAll("_", " "), said, behalf ?? name ?? id, reason].filter(Boolean).join(" · "));
    if (["input_received", "input_closed", "waiting_for_input", "paused", "resumed"].includes(word)) return;
    this.timeline.finish();
    this.text.finish();
  }

  /** Mark what an earlier attempt did and this one does again. */
  #withdraw(superseded) {
    const [first, last] = superseded ?? [];
    for (const node of this.root.querySelectorAll("section [data-seq]")) {
      if (node.dataset.seq >= first && node.dataset.seq <= last) node.dataset.withdrawn = "";
    }
  }

  #warn(name, facts) {
    if (name === "stream.gap") {
      this.last = facts.first_seq - 1;
      this.#notice("gap", `Gap: events ${facts.requested}–${this.last} are no longer in the log.`);
      return;
    }
    this.#build();
    if (this.#run) this.#render(this.#run);
    this.#notice("reset", `Reset (${facts.reason}): the log is not the one shown before; this is it as it is now.`);
  }

  #notice(mark, text) {
    this.#notices = [...this.#notices, { mark, text }].slice(-5);
    this.part("notices").replaceChildren(...this.#notices.map((notice) => el("p", {}, notice.text)));
    this.#link(this.#word);
  }

  /** Say how far this page is to be believed. */
  #link(word) {
    this.#word = word;
    const link = this.part("link");
    link.dataset.state = word;
    link.textContent = [word, ...new Set(this.#notices.map(({ mark }) => mark))].join(" · ");
    if (word === "live" || word === "ended") this.#refresh();
  }

  async #act(button) {
    say(this.part("error"), null);
    button.disabled = true;
    try {
      const run = await call("POST", runPath(this.#id, button.dataset.verb));
      if (run.id === this.#id) this.#render(run);
      else location.hash = `run=${run.id}`;
    } catch (error) {
      say(this.part("error"), error.message);
    }
    button.disabled = false;
  }

  async #check() {
    const run = await call("GET", runPath(this.#id));
    if (run.log_expired) this.#notice("log expired", "The run's log has been removed after its retention.");
    return run.log_expired || (run.ended_at && run.head_seq === this.last);
  }

  #fail(error) {
    if (error.status === 401) return this.#refused(error);
    this.#stop?.();
    this.#link("failed");
    say(this.part("error"), error.message);
  }
}
