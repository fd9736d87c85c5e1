// A run's log as a page shows it: pages are read where somebody looks, live events are kept as they come.

import { call, runPath } from "./session.js";

const PAGE = 200;
const SCANNED = 1000;
const KEPT = 20_000;

export class Log {
  events = new Map();
  #reading = new Set();
  #scan = null;
  #seen = null;
  first = 1;
  head = 0;
  /** What fits the filter, in order; null while there is none. `scanned` says up to where was looked. */
  found = null;
  scanned = 0;
  error = null;

  /** `changed` is told when there is more to show. */
  constructor(runId, changed) {
    this.runId = runId;
    this.changed = changed;
  }

  get total() { return this.found ? this.found.length : Math.max(0, this.head - this.first + 1); }
  at(index) { return this.found ? this.found[index] : this.events.get(this.first + index); }
  seqAt(index) { return this.found ? this.found[index].seq : this.first + index; }

  take(event) {
    this.head = Math.max(this.head, event.seq);
    this.#keep(event);
    if (this.#scan && this.scanned === event.seq - 1) this.#sift([event], event.seq);
  }

  forget() {
    this.events.clear();
    this.#reading.clear();
    this.first = 1;
    this.head = 0;
    if (this.#scan) this.filter(this.#scan.types, this.#scan.text);
  }

  #keep(event) {
    this.events.set(event.seq, event);
    if (this.events.size <= KEPT) return;
    for (const seq of this.events.keys()) {
      this.events.delete(seq);
      if (this.events.size <= KEPT * 0.8) break;
    }
    this.#reading.clear();
  }

  /** Read what is missing between two indexes. */
  need(from, to) {
    this.#seen = [from, to];
    if (this.found) return;
    for (let seq = this.first + from; seq <= Math.min(this.head, this.first + to); seq++) {
      const page = Math.floor((seq - 1) / PAGE);
      if (!this.events.has(seq) && !this.#reading.has(page)) this.#read(page);
    }
  }

  async #read(page) {
    this.#reading.add(page);
    let read = 0;
    try {
      const { data } = await call("GET", `${runPath(this.runId, "events")}?after_seq=${page * PAGE}&limit=${PAGE}`);
      for (const event of data) this.#keep(event);
      read = data.at(-1)?.seq;
      this.error = null;
    } catch (error) {
      this.error = error.message;
    }
    this.#reading.delete(page);
    // The log may have grown past what this page had of it while it was read.
    if (read && read < Math.min(this.head, (page + 1) * PAGE)) this.need(...this.#seen);
    this.changed();
  }

  /** Look through the whole log for events of `types` that hold `text`; neither ends it. */
  async filter(types, text) {
    if (!types && !text) {
      this.#scan = this.found = null;
      return this.changed();
    }
    const scan = (this.#scan = { types, text });
    this.found = [];
    this.scanned = this.first - 1;
    try {
      while (this.#scan === scan && this.scanned < this.head) {
        const query = `after_seq=${this.scanned}&limit=${SCANNED}${types ? `&types=${encodeURIComponent(types)}` : ""}`;
        const page = await call("GET", `${runPath(this.runId, "events")}?${query}`);
        if (this.#scan !== scan) return undefined;
        this.#sift(page.data, page.has_more ? page.next_after_seq : Math.max(page.head_seq, this.scanned));
        this.changed();
      }
    } catch (error) {
      this.error = error.message;
    }
    return this.changed();
  }

  #sift(events, upTo) {
    const { types, text } = this.#scan;
    const wanted = types && types.split(",").map((type) => (type.endsWith("*") ? (seen) => seen.startsWith(type.slice(0, -1)) : (seen) => seen === type));
    const lower = text?.toLowerCase();
    for (const event of events) {
      if (event.seq <= this.scanned || (wanted && !wanted.some((fits) => fits(event.type)))) continue;
      if (!lower || JSON.stringify(event).toLowerCase().includes(lower)) this.found.push(event);
    }
    this.scanned = Math.max(this.scanned, upTo);
  }

  /** Everything that is listed, one event a line. */
  async text() {
    if (this.found) return this.found.map((event) => JSON.stringify(event)).join("\n");
    const all = [];
    for (let seq = this.first - 1; seq < this.head; ) {
      const page = await call("GET", `${runPath(this.runId, "events")}?after_seq=${seq}&limit=${SCANNED}`);
      if (!page.data.length) break;
      all.push(...page.data);
      seq = page.data.at(-1).seq;
    }
    return all.map((event) => JSON.stringify(event)).join("\n");
  }
}
