// The parts of a run's page that its events fill. Each keeps a bounded tail.

import { duration, el, json } from "./dom.js";

const MESSAGES = 50;
const MESSAGE_CHARS = 100_000;
const ENTRIES = 300;
const LINES = 500;

const clock = (at) => at.slice(11, 23);

function bound(list, most) {
  while (list.childElementCount > most) list.firstElementChild.remove();
}

/** What the run says, as it says it. */
export class TextPane {
  #open = new Map();

  constructor(section) {
    this.section = section;
    this.box = section.querySelector("div");
  }

  add({ type, data, seq }) {
    const id = data.message_id ?? "";
    const node = this.#open.get(id) ?? this.#begin(id, data, seq);
    const text = node.firstChild;
    if (type === "message.delta") text.appendData(data.content);
    else text.data = data.content;
    if (text.length > MESSAGE_CHARS) text.replaceData(0, text.length - MESSAGE_CHARS, "…");
    if (type === "message.completed") this.#close(id);
  }

  #begin(id, { role }, seq) {
    const node = el("p", { "data-seq": seq, "data-open": true, "data-role": role }, "");
    this.#open.set(id, node);
    this.box.append(node);
    bound(this.box, MESSAGES);
    this.section.hidden = false;
    return node;
  }

  #close(id) {
    delete this.#open.get(id)?.dataset.open;
    this.#open.delete(id);
  }

  /** Nothing more comes of what was being said. */
  finish() {
    for (const id of this.#open.keys()) this.#close(id);
  }
}

/** Steps, tool calls and whatever else happened, in order. */
export class Timeline {
  #running = new Map();

  constructor(section) {
    this.section = section;
    this.list = section.querySelector("ol");
  }

  begin(id, name, event) {
    const row = this.#add(event, name, "running");
    this.#running.set(id, row);
    this.#fill(row, "input", event.data.input);
  }

  progress(id, event) {
    this.#find(id, event).note.textContent = json(event.data.progress, 80, 0);
  }

  end(id, event, state) {
    const row = this.#find(id, event);
    const { output, error, duration_ms: took } = event.data;
    row.node.dataset.state = error || ["failed", "error"].includes(state) ? "failed" : "done";
    row.note.textContent = ["completed", "ok"].includes(state) ? "" : state;
    row.took.textContent = took === undefined ? "" : duration(took);
    this.#fill(row, "output", output);
    this.#fill(row, "error", error);
    this.#running.delete(id);
  }

  note(event, text, body) {
    this.#fill(this.#add(event, text, "note"), "value", body);
  }

  /** Nothing that still runs will end any more. */
  finish() {
    for (const { node, note } of this.#running.values()) {
      node.dataset.state = "abandoned";
      note.textContent = "abandoned";
    }
    this.#running.clear();
  }

  #find(id, event) {
    if (!this.#running.has(id)) this.begin(id, "(begun before this log)", { ...event, data: {} });
    return this.#running.get(id);
  }

  #add({ seq, type, step_id: step }, text, state) {
    const [name, note, took] = ["name", "note", "took"].map((part) => el("span", { class: part }));
    name.textContent = text;
    const details = el("details", {}, el("summary", {}, name, note, took));
    const inner = step && !type.startsWith("step.");
    const node = el("li", { "data-seq": seq, "data-state": state, class: inner ? "inner" : null }, details);
    this.list.append(node);
    bound(this.list, ENTRIES);
    this.section.hidden = false;
    return { node, note, took, details };
  }

  #fill({ details }, label, value) {
    if (value === undefined || value === null) return;
    details.dataset.full = "";
    details.append(el("h3", {}, label), el("pre", {}, json(value)));
  }
}

/** The newest rows of something, scrolled along while their end is in view. */
class Tail {
  constructor(section) {
    this.section = section;
    this.list = section.querySelector("ol");
  }

  append(events, cells) {
    const { list } = this;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(...events.slice(-LINES).map((event) => el("li", { "data-seq": event.seq }, ...cells(event))));
    bound(list, LINES);
    if (events.length) this.section.hidden = false;
    if (atEnd) list.scrollTop = list.scrollHeight;
  }
}

export class LinesPane extends Tail {
  add(events) {
    const lines = events.filter(({ type }) => type === "log");
    this.append(lines, ({ created_at: at, data }) => [
      el("time", {}, clock(at)),
      el("span", { "data-level": data.level }, data.message),
    ]);
  }
}

export class RawPane extends Tail {
  add(events) {
    this.append(events, ({ seq, type, created_at: at, data }) => [
      el("b", {}, seq),
      el("time", {}, clock(at)),
      el("i", {}, type),
      el("code", {}, json(data, 400, 0)),
    ]);
    const first = this.list.firstElementChild.dataset.seq;
    const kept = this.list.childElementCount === LINES ? `, the last ${LINES}` : "";
    this.section.querySelector(".range").textContent = `${first}–${this.list.lastElementChild.dataset.seq}${kept}`;
  }
}
