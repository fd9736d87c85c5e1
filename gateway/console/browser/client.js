// The browser's client of the run gateway: one module, no dependencies; docs/browser.md says how to use it.
//
// A page holds runs; a hub holds their connection. The hub lives in a SharedWorker made of this same file, so that
// all tabs of an origin share it; where there is none, each page has a hub of its own.

// ---- The fold: from events to the state that the gateway's own snapshots have.

const LOG_LINES = 200, MESSAGE_CHARS = 256 * 1024;
const ENDINGS = ["completed", "failed", "cancelled", "timed_out", "crashed", "system_failed", "expired", "dead_lettered"];
const LETS_GO = ["queued", "released", "restarted", "attempt_failed", ...ENDINGS];
const STATUS = {
  created: "delayed", started: "running", attempt_failed: "delayed", rescheduled: "delayed", restarted: "queued",
  cancel_requested: "cancelling", dead_lettered: "dead_letter",
};
const SAME = ["queued", "dequeued", "paused", "waiting_for_input", ...ENDINGS];
const QUESTION = "prompt schema deadline_at on_timeout default content actor reason closed_at closed_seq";
const ENTRY = "name input output error progress ended_at duration_ms parent_id";
const IDS = { steps: "step_id", tool_calls: "call_id", messages: "message_id" };
const places = new WeakMap();

const pick = (data, names) => Object.fromEntries(names.split(" ").map((name) => [name, data[name] ?? null]));
const began = (event) => pick(event, "seq attempt created_at step_id");
const isOpen = (question) => question.status === "open";

/** The state of a run of which nothing is known yet. */
export const newState = (runId) => ({
  run_id: runId, status: null, link: "connecting", attempt: 1, as_of_seq: 0, head_seq: 0, behind: 0,
  gap: null, reset: null, problem: null, output: null, error: null,
  steps: [], tool_calls: [], messages: [], usage: [], checkpoints: [], files: [], history: [], outputs: {}, questions: {},
  totals: { prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0, cost_microusd: 0, credits_micro: 0 },
  logs: [], log_count: 0, boundary_seq: 0, cuts: {},
});

/** Bring `state` on by one event, in place; an event that it holds already changes nothing. */
export function fold(state, event) {
  if (event.seq <= state.as_of_seq) return state;
  const { seq, type, created_at: at } = event;
  const data = event.data ?? {};
  state.as_of_seq = seq;
  state.attempt = event.attempt;
  if (type.startsWith("run.")) {
    state.history.push({ at, ...pick(event, "seq attempt type"), ...pick(data, "actor reason") });
    foldRun(state, event, data, type.slice(4));
  } else RULES[type]?.(state, event, data);
  return state;
}

/** Where entries are found by their ids; derived, so that a snapshot need not carry it. */
function find(state) {
  if (!places.has(state)) {
    const known = { newest: new Map(state.messages.map((message) => [message.step_id, message])) };
    for (const [list, id] of Object.entries(IDS)) known[list] = new Map(state[list].map((entry) => [entry[id], entry]));
    known.running = new Set([...state.steps, ...state.tool_calls].filter((entry) => !entry.ended_at));
    const words = state.history.map(({ type }) => type.slice(4));
    known.held = words.findLast((word) => word === "started" || LETS_GO.includes(word)) === "started";
    places.set(state, known);
  }
  return places.get(state);
}

function foldRun(state, event, data, word) {
  const known = find(state), before = state.status, ends = ENDINGS.includes(word), id = data.request_id;
  const asked = (about) => ({ ...began(event), ...pick(about, QUESTION), request_id: id, status: "open" });
  const close = (question, status, facts) =>
    Object.assign(question, facts, { status, closed_at: event.created_at, closed_seq: event.seq });
  if (ends || word === "restarted") {
    state.output = data.output ?? null;
    state.error = ends ? data.error ?? null : null;
  }
  if (ends) {
    for (const entry of known.running) abandon(known, entry, event);
    for (const question of Object.values(state.questions).filter(isOpen)) close(question, "closed", { reason: "run_ended" });
  } else if (word === "attempt_started") withdraw(state, event, data.supersedes);
  else if (word === "waiting_for_input") {
    delete state.questions[id];
    state.questions[id] = asked(data);
  } else if (word.startsWith("input_")) {
    const question = (state.questions[id] ??= asked({}));
    if (word === "input_received") close(question, "answered", pick(data, "content actor"));
    else if (isOpen(question)) close(question, "closed", pick(data, "reason"));
  }
  if (word === "started") known.held = true;
  if (LETS_GO.includes(word)) known.held = false;
  const goesOn = word === "resumed" || (word.startsWith("input_") && before === "waiting_for_input");
  if (goesOn) state.status = Object.values(state.questions).some(isOpen) ? "waiting_for_input" : known.held ? "running" : "queued";
  else if (word !== "released") state.status = STATUS[word] ?? (SAME.includes(word) ? word : before);
  else if (["dequeued", "running"].includes(before)) state.status = "queued";
}

function abandon(known, entry, event) {
  if (known.running.delete(entry)) Object.assign(entry, { status: "abandoned", ended_at: event.created_at });
}

/** What is superseded is said again: so are the ends of messages that began before it. */
function withdraw(state, event, superseded) {
  const [first, last] = superseded ?? [1, 0];
  state.boundary_seq = event.seq;
  for (const message of state.messages) {
    const cuts = state.cuts[message.seq] ?? [], index = cuts.findIndex(([boundary]) => boundary >= first - 1);
    if (message.seq >= first || index < 0 || !last) continue;
    const [[, units, elided_bytes]] = cuts.splice(index);
    if (units === null) message.superseded = true;
    else Object.assign(message, { content: message.content.slice(0, units), elided_bytes, completed: false, ended_at: null });
  }
  for (const list of [state.steps, state.tool_calls, state.messages, state.files, Object.values(state.outputs)]) {
    for (const entry of list) {
      if (entry.seq < first || entry.seq > last) continue;
      entry.superseded = true;
      abandon(find(state), entry, event);
    }
  }
}

/** A step or a call: what ends without a beginning is an entry, too, which a late beginning completes. */
function entryOf(state, event, list, begins) {
  const known = find(state), id = event.data[IDS[list]], entry = known[list].get(id);
  const over = begins && entry?.name != null && (entry.ended_at || entry.attempt !== event.attempt);
  if (entry && !entry.superseded && !over) return entry;
  const made = {
    ...began(event), ...pick({}, ENTRY), started_at: begins ? event.created_at : null, superseded: false,
    status: list === "steps" ? "started" : "running", [IDS[list]]: id,
  };
  state[list].push(made);
  known[list].set(id, made);
  known.running.add(made);
  return made;
}

const begin = (list) => (state, event, data) =>
  Object.assign(entryOf(state, event, list, true), pick(data, "name input"), pick(event, "parent_id"));

const finish = (list, names, status) => (state, event, data) => {
  const entry = Object.assign(entryOf(state, event, list), { status, ...pick(data, names), ended_at: event.created_at });
  find(state).running.delete(entry);
};

/** The message that an event belongs to: its id's, else the one that its step is writing. */
function messageOf(state, event, { message_id: id, role = null }) {
  const known = find(state), step_id = event.step_id ?? null, open = known.newest.get(step_id);
  let message = id == null ? null : known.messages.get(id);
  if (!message || message.superseded) {
    // A whole text with a new id may name what was being written without one; a delta with an id begins anew.
    const takesId = id == null || (event.type === "message.completed" && open?.message_id == null && !known.messages.has(id));
    const fits = takesId && open && !open.completed && !open.superseded && open.attempt === event.attempt;
    if (fits && (role === null || (open.role ?? role) === role)) message = open;
    else {
      message = { ...began(event), ...pick({}, "message_id role ended_at"), content: "", elided_bytes: 0,
        completed: false, superseded: false };
      state.messages.push(message);
      known.newest.set(step_id, message);
    }
    if (id != null) known.messages.set((message.message_id = id), message);
  }
  message.role ??= role;
  // What it has before it goes on beyond a checkpoint, or in another attempt.
  const { boundary_seq } = state;
  if (message.seq < boundary_seq) {
    const cuts = (state.cuts[message.seq] ??= []);
    if (cuts.at(-1)?.[0] !== boundary_seq) cuts.push([boundary_seq, message.content.length, message.elided_bytes]);
    if (cuts.length > 64) cuts.shift();
  }
  return message;
}

const RULES = {
  "step.started": begin("steps"),
  "step.completed": finish("steps", "output duration_ms", "completed"),
  "step.failed": finish("steps", "error duration_ms", "failed"),
  "tool.call": begin("tool_calls"),
  "tool.progress": (state, event, data) => Object.assign(entryOf(state, event, "tool_calls"), pick(data, "progress")),
  "tool.result": finish("tool_calls", "output status duration_ms"),
  "message.delta"(state, event, data) {
    const message = messageOf(state, event, data);
    if (message.elided_bytes || message.content.length + data.content.length > MESSAGE_CHARS)
      message.elided_bytes += new Blob([data.content]).size;
    else message.content += data.content;
  },
  "message.completed"(state, event, { content, ...data }) {
    const about = { content, elided_bytes: 0, completed: true, ended_at: event.created_at };
    const message = messageOf(state, event, data);
    for (const cut of state.cuts[message.seq] ?? [])
      if (!content.startsWith(message.content.slice(0, cut[1]))) cut[1] = null;
    Object.assign(message, about);
  },
  "usage.recorded"(state, event, data) {
    const names = "provider model prompt_tokens completion_tokens cached_tokens cost_microusd credits";
    state.usage.push({ ...began(event), ...pick(data, names) });
    const spent = { ...data, credits_micro: Math.round((data.credits ?? 0) * 1e6) };
    for (const name in state.totals) state.totals[name] += spent[name] ?? 0;
  },
  "checkpoint.created"(state, event, data) {
    state.boundary_seq = event.seq;
    state.checkpoints.push({ ...began(event), ...pick(data, "source state") });
  },
  "output.set"(state, event, data) {
    delete state.outputs[data.key];
    state.outputs[data.key] = { ...began(event), ...pick(data, "key value schema"), superseded: false };
  },
  "file.created": (state, event, data) =>
    state.files.push({ ...began(event), ...pick(data, "file_id name size_bytes content_type"), superseded: false }),
  log(state, event, data) {
    state.log_count++;
    state.logs.push({ at: event.created_at, ...began(event), ...pick(data, "level message data") });
    if (state.logs.length > LOG_LINES) state.logs.shift();
  },
};

// ---- The wire.

/** Return a function that takes the text of an SSE stream piece by piece and tells `onFrame({event, data, id})`. */
export function sseParser(onFrame) {
  let rest = "", frame = {};
  return (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const colon = line.indexOf(":");
      if (colon > 0) frame[line.slice(0, colon)] = line.slice(colon + 2);
      if (line) continue;
      if (frame.data) onFrame(frame);
      frame = {};
    }
  };
}

/** How long to wait after so many failures, in ms: full jitter under a doubling bound. */
export const backoff = (failures, random = Math.random) => random() * Math.min(15_000, 500 * 2 ** failures);

const SSE_RUNS = 16, SOCKET_RUNS = 64, SILENT_MS = 45_000, ANSWER_MS = 10_000, SETTLE_MS = 15;
const FEED = "feed", FINAL = [400, 403, 404, 410];

const refusal = (problem) => Object.assign(new Error(problem.detail ?? `Refused: ${problem.status}.`), { problem, status: problem.status });
const readRefusal = async (answer) => refusal({ status: answer.status, ...(await answer.json().catch(() => ({}))) });

/** One connection for some runs, and whatever it takes to have one again. */
class Line {
  failures = 0; denied = 0;

  constructor(hub, lanes, { ticket, stale, covered = [] }) {
    Object.assign(this, { hub, lanes, ticket, stale, covered });
    this.run();
  }

  get open() { return this.lanes.filter((lane) => !lane.over); }
  tell(link) { for (const lane of this.open) this.hub.tell(lane, link); }
  cut(how) { this.hangUp?.(how); }

  async run() {
    while (!this.closed && this.open.length) {
      const began = Date.now();
      let how = "lost";
      try {
        if (this.hub.asleep) how = await this.pause(2 ** 31 - 1);
        else {
          const ticket = await this.credential();
          if (!this.closed) how = await this.listen(ticket);
        }
      } catch (error) {
        this.refused(error);
      }
      if (this.closed || how === "again" || !this.open.length) continue;
      if (this.hub.asleep) this.tell("asleep");
      else {
        const renews = how === "renew" && Date.now() - began > 900;
        if (!renews) this.tell("reconnecting");
        await this.pause(renews ? 0 : backoff(this.failures++));
      }
    }
  }

  pause(ms) {
    return new Promise((resolve) => {
      setTimeout(resolve, ms, "again");
      this.hangUp = resolve;
    });
  }

  async credential() {
    const runs = this.open.map((lane) => lane.run);
    if (!this.ticket || this.stale === this.ticket || runs.some((run) => !this.covered.includes(run))) {
      const made = await this.hub.ask(runs.filter((run) => run !== FEED), this.stale);
      this.ticket = made?.ticket ?? made;
      this.covered = runs;
      // Shown to one connection, it is no good for the next.
      if (made?.single_use) this.stale = this.ticket;
    }
    return this.ticket;
  }

  /** Take out what is refused for good. */
  refused(error) {
    const { status, final, problem } = error, lanes = this.open;
    if (status === 401) this.stale = this.ticket;
    if (final || (status === 401 ? ++this.denied > 3 : FINAL.includes(status) && lanes.length === 1))
      for (const lane of lanes) this.hub.fail(lane, problem);
    // Of several runs a socket tells which it is.
    else if (FINAL.includes(status)) this.usesSocket = true;
  }

  fetch(lanes, signal) {
    const feeds = lanes[0].run === FEED, url = new URL(feeds ? "v1/feed" : "v1/stream", this.hub.base);
    const froms = lanes.map((lane) => lane.from), query = url.searchParams;
    if (!feeds) for (const { run } of lanes) query.append("run", run);
    if (!feeds && froms.every((from) => from.seq || from.snapshot)) query.set("snapshot", "true");
    query.set("after", feeds && !froms[0].cursor ? "now" : froms.map((from) => from.cursor || 0).join());
    if (this.ticket) query.set("ticket", this.ticket);
    return fetch(url, { signal, cache: "no-store", headers: { accept: "text/event-stream" } });
  }

  listen(ticket) { return this.usesSocket || this.hub.isSocket(this.lanes) ? this.listenSocket(ticket) : this.listenSse(); }

  async listenSse() {
    const abort = new AbortController(), lanes = this.open;
    let how = "lost", timer, reader;
    // An aborted read need not end where the answer has come whole; a cancelled one does.
    this.hangUp = (why) => { how = why; abort.abort(); reader?.cancel().catch(() => {}); };
    const alive = () => { clearTimeout(timer); timer = setTimeout(this.hangUp, SILENT_MS, how); };
    const parse = sseParser(({ event: name, data: text, id }) => {
      const data = JSON.parse(text), lane = lanes.find(({ run }) => run === FEED || run === data.run_id);
      if (how !== "lost") return;
      if (name === "stream.closed") how = this.sentAway(data);
      else if (name) this.control(lane, name, data, id?.split(",")[lanes.indexOf(lane)]);
      else if (data.event) this.hub.event(lane, data.event, data.cursor);
      else this.hub.event(lane, data, id);
    });
    try {
      alive();
      const answer = await this.fetch(lanes, abort.signal);
      if (answer.status === 204) for (const lane of lanes) this.control(lane, "stream.end", {});
      else if (!answer.ok) throw await readRefusal(answer);
      this.denied = 0;
      reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
      for (let piece; reader && !(piece = await reader.read()).done; this.hub.flush()) {
        alive();
        parse(piece.value);
      }
    } catch (error) {
      if (error.problem) throw error;
    } finally {
      clearTimeout(timer);
      abort.abort();
    }
    return how;
  }

  listenSocket(ticket) {
    return new Promise((resolve) => {
      const url = new URL("v1/ws", this.hub.base.replace("http", "ws")), lanes = this.open;
      if (ticket) url.searchParams.set("ticket", ticket);
      const socket = new WebSocket(url, "gateway.v1");
      let heard = Date.now(), how = "lost";
      const say = (frame) => socket.readyState === 1 && socket.send(JSON.stringify(frame));
      const done = (this.hangUp = (why) => {
        clearInterval(timer);
        socket.onmessage = socket.onclose = null;
        socket.close();
        resolve(why);
      });
      const timer = setInterval(() => {
        if (Date.now() - heard > SILENT_MS) done(how);
        else say({ type: "ping", id: "ping" });
      }, SILENT_MS / 3);
      socket.onopen = () => {
        for (const { run, from } of lanes) {
          const place = from.cursor ? { after: from.cursor } : { snapshot: !!from.snapshot };
          say({ type: "subscribe", id: run, run_id: run, ...place });
        }
      };
      socket.onmessage = ({ data: text }) => {
        heard = Date.now();
        const data = JSON.parse(text), { type, problem } = data;
        const lane = lanes.find(({ run }) => run === (data.run_id ?? data.id));
        if (type === "event") this.hub.event(lane, data.event, data.cursor);
        else if (type === "stream.closed") done(this.sentAway(data));
        else if (problem?.status < 500) this.hub.fail(lane, problem);
        else if (type.startsWith("stream.")) this.control(lane, type, data, data.cursor);
        if (problem?.status >= 500 || how === "again" || !this.open.length) done(how);
      };
      socket.onclose = ({ code }) => {
        if (code === 4401) this.stale = this.ticket;
        done(how);
      };
    });
  }

  /** Return what follows from the gateway's word that it hangs up. */
  sentAway({ reason }) {
    if (!["ticket_expired", "key_revoked"].includes(reason)) return "lost";
    this.stale = this.ticket;
    return "renew";
  }

  control(lane, name, data, cursor) {
    this.failures = this.denied = 0;
    this.hub.control(lane, name, data, cursor);
    if (name === "stream.reset" || (name === "stream.snapshot" && lane.from.seq < data.as_of_seq)) this.cut("again");
  }
}

/** Whoever wants events, and the lines that bring them: a lane a run, a sub for each page that watches it. */
class Hub {
  lanes = new Map(); ports = new Set(); lines = []; asked = new Map(); asks = 0;

  constructor({ base, transport }, hiddenMs = 30_000) { Object.assign(this, { base, transport, hiddenMs }); }

  isSocket([{ run }, ...others]) { return run !== FEED && (this.transport === "ws" || others.length >= SSE_RUNS); }

  /** Take a page's message; `port` is `{post, box}`. */
  hear(port, message) {
    const { run, id } = message;
    this.ports.add(port);
    if (message.do === "open") {
      const lane = this.lanes.get(run) ?? newLane(run);
      this.lanes.set(run, lane);
      lane.subs.add({ ...message, port });
      lane.over = false;
      lane.moved = true;
      this.planSoon();
    } else if (message.do === "close") this.drop((sub) => sub.port === port && sub.id === id);
    else if (message.do === "here") this.see(port, message);
    else if (message.do === "answer") this.asked.get(message.ask)?.(message);
    else this.leave(port);
  }

  drop(isGone) {
    for (const lane of this.lanes.values()) {
      for (const sub of lane.subs) if (isGone(sub)) lane.subs.delete(sub);
      if (!lane.subs.size) this.lanes.delete(lane.run);
    }
    this.planSoon();
  }

  leave(port) {
    this.ports.delete(port);
    this.drop((sub) => sub.port === port);
    this.see(port, port);
  }

  see(port, { hidden, wake, offline }) {
    port.hidden = hidden;
    const seen = [...this.ports].some((other) => !other.hidden), wakes = seen && this.asleep;
    clearTimeout(this.sleeping);
    if (seen) this.asleep = false;
    else this.sleeping = setTimeout(() => { this.asleep = true; this.cut("asleep"); }, this.hiddenMs);
    if (offline) this.cut("lost");
    else if (wake || wakes) this.cut("again");
  }

  cut(how) { for (const line of this.lines) line.cut(how); }
  planSoon() { this.planning ??= setTimeout(() => { this.planning = null; this.plan(); }, SETTLE_MS); }

  /** Keep the lines whose runs are as they were, and lay the others anew. */
  plan() {
    const open = [...this.lanes.values()].filter((lane) => !lane.over), runs = open.filter(({ run }) => run !== FEED);
    const groups = [open.filter(({ run }) => run === FEED)], former = this.lines;
    while (runs.length) groups.push(runs.splice(0, SOCKET_RUNS));
    const kept = groups.map((group) =>
      group.some((lane) => lane.moved) ? null : former.find((line) => line.open.join() === group.join()));
    for (const line of former) {
      if (kept.includes(line)) continue;
      line.closed = true;
      line.cut();
    }
    this.lines = groups.flatMap((group, index) => {
      if (!group.length || kept[index]) return kept[index] ?? [];
      for (const lane of group) lane.moved = false;
      return new Line(this, group, former.find((line) => line.covered.includes(group[0].run)) ?? {});
    });
  }

  event(lane, event, cursor) {
    for (const sub of lane.subs) {
      if (event.seq <= sub.seq) continue;
      // One that has just come waits for its own beginning.
      if (lane.run !== FEED && event.seq !== sub.seq + 1) lane.moved = true;
      else this.put(Object.assign(sub, { seq: event.seq, cursor }), "event", event, cursor);
    }
    if (lane.moved) this.planSoon();
    if (event.seq >= lane.head && lane.link !== "live") this.tell(lane, "live");
  }

  control(lane, name, data, cursor) {
    for (const sub of lane.subs) {
      if (name === "stream.snapshot") {
        if (sub.seq || !sub.snapshot) continue;
        Object.assign(sub, { seq: data.as_of_seq, cursor });
      } else if (name === "stream.gap") {
        if (sub.seq >= data.first_seq - 1) continue;
        Object.assign(sub, { seq: data.first_seq - 1, cursor: `${data.first_seq - 1}` });
      } else if (name === "stream.reset") Object.assign(sub, { seq: 0, cursor: null });
      this.put(sub, name, data, cursor);
    }
    if (name === "stream.open") {
      // A feed that breaks before its first change goes on from here, not from another "now".
      if (lane.run === FEED) for (const sub of lane.subs) if (!sub.cursor) sub.cursor = `${(sub.seq = data.after_seq)}`;
      lane.head = data.head_seq;
      this.tell(lane, data.after_seq < lane.head ? "catching_up" : "live");
    } else if (name === "stream.end") this.finish(lane, "ended");
  }

  fail(lane, problem) {
    for (const sub of lane.subs) this.put(sub, "failed", problem);
    this.finish(lane, "failed");
  }

  finish(lane, link) {
    lane.over = true;
    this.tell(lane, link);
  }

  tell(lane, link) {
    lane.link = link;
    for (const sub of lane.subs) this.put(sub, "link", link);
  }

  put({ port, id }, kind, data, cursor) {
    port.box.push([id, kind, data, cursor]);
    this.flushing ??= setTimeout(() => this.flush(), SETTLE_MS);
  }

  flush() {
    clearTimeout(this.flushing);
    this.flushing = null;
    for (const port of this.ports) if (port.box.length) port.post({ list: port.box.splice(0) });
  }

  /** Have a page renew the ticket: one that is seen first, else whoever answers. */
  async ask(runs, stale) {
    for (const port of [...this.ports].sort((a, b) => !!a.hidden - !!b.hidden)) {
      const ask = ++this.asks;
      const answer = await new Promise((resolve) => {
        this.asked.set(ask, resolve);
        setTimeout(resolve, ANSWER_MS);
        port.post({ ask, runs, stale });
      });
      this.asked.delete(ask);
      if (answer?.problem) throw Object.assign(refusal(answer.problem), { final: [401, 403].includes(answer.problem.status) });
      if (answer) return answer.ticket;
    }
    throw new Error("nobody answers");
  }
}

const newLane = (run) => ({
  run, subs: new Set(), head: 0,
  /** Where the one stands that has least; who follows a feed from now on asks for nothing that was. */
  get from() {
    return [...this.subs].reduce((least, sub) =>
      (sub.seq < least.seq && (run !== FEED || sub.cursor)) || (run === FEED && !least.cursor) ? sub : least);
  },
  toString: () => run,
});

if (globalThis.SharedWorkerGlobalScope) {
  let hub;
  addEventListener("connect", ({ ports: [pipe] }) => {
    const port = { post: (message) => pipe.postMessage(message), box: [] };
    pipe.onmessage = ({ data }) => (data.do === "hello" ? (hub ??= new Hub(data)) : hub.hear(port, data));
    pipe.onclose = () => hub?.leave(port);
  });
}

// ---- The page.

const QUEUED = 5_000, TRIES = 4, CONTROL = ["stream.gap", "stream.reset", "stream.snapshot"];
const policy = globalThis.trustedTypes?.createPolicy("gateway-client", { createScriptURL: (url) => url });
const randomWord = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
const hash = (text) => [...text].reduce((sum, letter) => (sum * 33 + letter.codePointAt(0)) >>> 0, 5381);

class Client {
  runs = new Map(); ids = 0;

  constructor(options, name) {
    Object.assign(this, { options, base: options.base, transport: options.transport });
    try {
      if (options.share === false) throw options;
      const url = policy ? policy.createScriptURL(import.meta.url) : import.meta.url;
      const worker = new SharedWorker(url, { type: "module", name }), pipe = worker.port;
      worker.onerror = () => this.standAlone();
      pipe.onmessage = ({ data }) => this.hear(data);
      this.post = (message) => pipe.postMessage(message);
      this.post({ do: "hello", base: this.base, transport: this.transport });
    } catch {
      this.standAlone();
    }
    if (globalThis.document) this.watch();
  }

  standAlone() {
    // Without a worker each tab has its own connections: a few hidden ones would take all that a browser opens.
    const hub = new Hub(this, 1_000), port = { post: (message) => queueMicrotask(() => this.hear(message)), box: [] };
    this.post = (message) => hub.hear(port, message);
    this.reopen();
  }

  reopen() { for (const run of [...this.runs.values()]) run.reconnect(); }

  watch() {
    const here = (more) => this.post({ do: "here", hidden: document.hidden, ...more });
    document.addEventListener("visibilitychange", () => here());
    addEventListener("online", () => here({ wake: true }));
    addEventListener("offline", () => here({ offline: true }));
    addEventListener("pagehide", () => this.post({ do: "bye" }));
    addEventListener("pageshow", ({ persisted }) => persisted && this.reopen());
    here();
  }

  async hear({ ask, runs, stale, list = [] }) {
    if (ask) {
      const answer = await this.ticket(runs, stale).then((ticket) => ({ ticket }), ({ message, status, problem }) => ({
        problem: { detail: message, status, ...problem },
      }));
      this.post({ do: "answer", ask, ...answer });
    }
    const heard = new Set();
    for (const [id, ...news] of list) {
      const run = this.runs.get(id);
      run?.hear(...news);
      heard.add(run);
    }
    for (const run of heard) run?.options.onState?.(run.state);
  }

  async ticket(runs, stale) {
    const { key, ticket } = this.options;
    if (ticket) return ticket({ runs, stale });
    return key && this.call("POST", "tickets", { tenant: true, scopes: ["runs:read"] });
  }

  openRun(id, options = {}) { return new Run(this, id, options); }
  feed(options = {}) { return new Run(this, FEED, options); }

  /** Call the API; what got no answer is repeated, a POST under the same idempotency key. */
  async call(method, path, body) {
    const headers = { "content-type": "application/json", "idempotency-key": randomWord() }, { key } = this.options;
    if (key) headers.authorization = `Bearer ${key}`;
    const request = { method, headers, body: body && JSON.stringify(body), cache: "no-store" };
    for (let tries = 1; ; tries++) {
      const answer = await fetch(new URL(`v1/${path}`, this.base), request).catch(() => ({ status: 0 }));
      if (answer.ok) return answer.json();
      if (answer.status && answer.status !== 503) throw await readRefusal(answer);
      if (tries === TRIES) throw refusal({ status: 0, detail: "The gateway cannot be reached." });
      await new Promise((resolve) => setTimeout(resolve, backoff(tries)));
    }
  }

  /** Act on a run, by the way that the page has for it, else over HTTP. */
  act(id, verb, body) {
    return this.options.act?.(id, verb, body) ?? this.call("POST", `runs/${encodeURIComponent(id)}/${verb}`, body);
  }
}

class Run {
  constructor(client, id, options) {
    const cursor = options.after ? `${options.after}` : null;
    Object.assign(this, { client, id, options, cursor, state: newState(id) });
    this.state.as_of_seq = Number.parseInt(cursor) || 0;
    this.reconnect();
  }

  /** Follow on from where it stands: now, or again after the end. */
  reconnect() {
    this.close();
    const sub = (this.sub = ++this.client.ids), { cursor } = this, snapshot = !!this.options.snapshot;
    this.client.runs.set(sub, this);
    this.client.post({ do: "open", id: sub, run: this.id, seq: this.state.as_of_seq, cursor, snapshot });
  }

  close() {
    if (this.client.runs.delete(this.sub)) this.client.post({ do: "close", id: this.sub });
  }

  hear(kind, data, cursor) {
    const { options } = this;
    let { state } = this;
    if (kind === "stream.reset") state = this.state = { ...newState(this.id), reset: data, link: state.link };
    if (kind === "stream.snapshot") places.delete(Object.assign(state, data.state));
    if (kind === "stream.gap") Object.assign(state, { gap: data, as_of_seq: data.first_seq - 1 });
    if (kind === "stream.open") state.head_seq = data.head_seq;
    if (data.status && (kind === "stream.end" || data.after_seq >= data.head_seq)) state.status = data.status;
    if (kind === "failed") state.problem = data;
    if (kind === "link") state.link = data;
    if (kind === "event") {
      if (this.id === FEED) state.as_of_seq = data.seq;
      else fold(state, data);
      options.onEvent?.(data, cursor);
    }
    if (state.as_of_seq !== Number.parseInt(this.cursor)) this.cursor = cursor ?? (state.as_of_seq ? `${state.as_of_seq}` : null);
    state.head_seq = Math.max(state.head_seq, state.as_of_seq);
    state.behind = state.head_seq - state.as_of_seq;
    if (CONTROL.includes(kind)) options.onControl?.(kind, data);
  }

  act(verb, body = {}) { return this.client.act(this.id, verb, body); }
  input(content, how) { return this.act("input", { content, ...how }); }

  async restart(how) {
    const run = await this.act("restart", how);
    // The end of the attempt before may be on its way still.
    this.reconnect();
    return run;
  }

  /** Yield the run's events from where it was opened; gap and reset stand among them as `{type, data}`. */
  async *[Symbol.asyncIterator]() {
    const queue = [];
    let wake, rests = false;
    const put = (entry) => {
      rests = queue.push(entry) >= QUEUED;
      if (rests) run.close();
    };
    const run = this.client.openRun(this.id, {
      after: this.options.after, onEvent: put, onState: () => wake?.(), onControl: (type, data) => put({ type, data }),
    });
    try {
      for (;;) {
        const { link, problem } = run.state;
        if (queue.length) yield queue.shift();
        else if (rests) {
          rests = false;
          run.reconnect();
        } else if (problem) throw refusal(problem);
        else if (link === "ended") return;
        else await new Promise((resolve) => (wake = resolve));
      }
    } finally {
      run.close();
    }
  }
}

for (const verb of ["cancel", "pause", "resume", "retry", "replay"])
  Run.prototype[verb] = function (how) { return this.act(verb, how); };

const clients = new Map();

/** Return the client of a gateway for whoever `key` or `ticket` stands for; the same one for the same options. */
export function connect({ base = ".", transport = "sse", identity, ...options } = {}) {
  base = `${new URL(base, import.meta.url)}`;
  const name = `gateway ${base} ${transport} ${identity ?? hash(options.key ?? "")}`;
  if (!clients.has(name)) clients.set(name, new Client({ ...options, base, transport }, name));
  return clients.get(name);
}

/** Follow a run; `options` are those of `connect` and of the run. */
export const openRun = (runId, options) => connect(options).openRun(runId, options);
