// The tenant's runs, newest first, each with its status as it is now.

import { call } from "./api.js";
import { el, say, sayStatus, ticking } from "./dom.js";
import { follow } from "./stream.js";

const LISTED = 50;
const ROWS = 500;
const AGAIN_MS = 3000;

export class RunList {
  #rows = new Map();
  #selected = null;
  #loaded = false;
  #handlers;

  /** Handlers: `changed(id, seq)` for each change of a status, `refused(error)` when the key no longer works. */
  constructor(handlers) {
    this.#handlers = handlers;
    this.list = document.getElementById("runs");
    const hearing = {
      events: (events) => events.forEach((event) => this.#hear(event)),
      control: () => this.#forget(),
      state: (word) => this.#tellLink(word),
      refused: handlers.refused,
      check: () => call("GET", "runs?limit=1").then(() => false),
    };
    this.close = follow("feed", hearing, { fromNow: true });
  }

  select(id) {
    this.#rows.get(this.#selected)?.node.firstChild.removeAttribute("aria-current");
    this.#rows.get(id)?.node.firstChild.setAttribute("aria-current", "page");
    this.#selected = id;
  }

  /** The feed lost something: what is listed may no longer be so. */
  #forget() {
    this.#rows.clear();
    this.list.replaceChildren();
    this.#load();
  }

  #tellLink(word) {
    const link = document.getElementById("feed-state");
    say(link, word);
    link.dataset.state = word;
    // The feed is followed from now on: what was before comes from the list.
    if (word === "live" && !this.#loaded) this.#load();
  }

  async #load() {
    const error = document.getElementById("list-error");
    try {
      const page = await call("GET", `runs?limit=${LISTED}`);
      for (const run of page.data) this.#put(run, run.head_seq);
      document.getElementById("no-runs").hidden = this.#rows.size > 0;
      say(error, null);
      this.#loaded = true;
    } catch (refusal) {
      say(error, refusal.message);
      if (refusal.passing) setTimeout(() => this.#load(), AGAIN_MS);
    }
  }

  #hear({ run_id: id, data, created_at: at }) {
    this.#put({ ...data, id, created_at: at }, data.run_seq);
    document.getElementById("no-runs").hidden = true;
    this.#handlers.changed(id, data.run_seq);
  }

  #put(run, seq) {
    const known = this.#rows.get(run.id);
    if (known) {
      if (seq > known.seq) sayStatus(known.status, run.status);
      known.seq = Math.max(seq, known.seq);
      return;
    }
    const row = makeRow(run, seq);
    this.#rows.set(run.id, row);
    // Run ids are in the order of creation, so that the newest is the greatest.
    this.list.insertBefore(row.node, [...this.list.children].find((node) => node.dataset.id < run.id) ?? null);
    if (run.id === this.#selected) this.select(run.id);
    if (this.#rows.size > ROWS) {
      this.#rows.delete(this.list.lastElementChild.dataset.id);
      this.list.lastElementChild.remove();
    }
  }
}

function makeRow(run, seq) {
  const status = el("span", { class: "status" });
  sayStatus(status, run.status);
  const title = el("span", { class: "title" }, run.title || `A run of ${run.agent_id}`);
  const about = el("span", { class: "about" }, status, el("span", {}, run.agent_id), ticking(run.created_at));
  const link = el("a", { href: `#run=${encodeURIComponent(run.id)}` }, title, about);
  return { node: el("li", { "data-id": run.id }, link), status, seq };
}
