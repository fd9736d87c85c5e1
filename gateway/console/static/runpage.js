// One run, live: its record says where it stands, its log what it does.

import { call, runPath } from "./api.js";
import { el, json, say } from "./dom.js";
import { LinesPane, RawPane, TextPane, Timeline } from "./panes.js";
import { Record } from "./record.js";
import { follow } from "./stream.js";

const GOES_ON = ["input_received", "input_closed", "waiting_for_input", "paused", "resumed"];

export class RunPage {
  #id;
  #refused;
  #stop;
  #notices = [];
  #word = "";
  #last = 0;

  /** `refused` is told when the key no longer works. */
  constructor(root, id, refused) {
    this.root = root;
    this.#id = id;
    this.#refused = refused;
    this.#build();
    this.#stop = follow(runPath(id, "stream"), {
      events: (events) => this.#take(events),
      control: (name, facts) => this.#warn(name, facts),
      state: (word) => this.#tellLink(word),
      refused: (error) => this.#fail(error),
      check: () => this.#check(),
    });
  }

  close() {
    this.#stop();
    this.record.close();
  }

  /** Whether the log has gone on after this page read it to its end. */
  isBehind(seq) {
    return this.#word === "ended" && seq > this.#last;
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  #build() {
    this.record?.close();
    this.root.replaceChildren(document.getElementById("run-page").content.cloneNode(true));
    this.record = new Record(this.#id, (name) => this.part(name), (error) => this.#fail(error));
    this.text = new TextPane(this.part("text"));
    this.timeline = new Timeline(this.part("timeline"));
    this.lines = new LinesPane(this.part("lines"));
    this.raw = new RawPane(this.part("raw"));
    this.#last = 0;
  }

  #take(events) {
    for (const event of events) {
      if (event.seq !== this.#last + 1) this.#notice("hole", `Events ${this.#last + 1}–${event.seq - 1} did not come.`);
      this.#last = event.seq;
      this.#show(event);
    }
    this.lines.add(events);
    this.raw.add(events);
    for (const { type, data } of events) if (type === "run.attempt_started") this.#withdraw(data.supersedes);
    if (events.some(({ type }) => type.startsWith("run."))) this.record.refresh();
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
    if (GOES_ON.includes(word)) return;
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
      this.#last = facts.first_seq - 1;
      this.#notice("gap", `Gap: events ${facts.requested}–${this.#last} are no longer in the log.`);
      return;
    }
    this.#build();
    this.#notice("reset", `Reset (${facts.reason}): the log is not the one shown before; this is it as it is now.`);
  }

  #notice(mark, text) {
    this.#notices = [...this.#notices, { mark, text }].slice(-5);
    this.part("notices").replaceChildren(...this.#notices.map((notice) => el("p", {}, notice.text)));
    this.#tellLink(this.#word);
  }

  /** Say how far this page is to be believed. */
  #tellLink(word) {
    this.#word = word;
    const link = this.part("link");
    link.dataset.state = word;
    link.textContent = [word, ...new Set(this.#notices.map(({ mark }) => mark))].join(" · ");
    if (word === "live" || word === "ended") this.record.refresh();
  }

  /** Whether the run has ended and all of its log is here; a log that was removed is told. */
  async #check() {
    const run = await call("GET", runPath(this.#id));
    if (run.log_expired) this.#notice("log expired", "The run's log has been removed after its retention.");
    return run.log_expired || (run.ended_at && run.head_seq === this.#last);
  }

  #fail(error) {
    if (error.status === 401) return this.#refused(error);
    this.#stop?.();
    this.#tellLink("failed");
    say(this.part("error"), error.message);
  }
}
