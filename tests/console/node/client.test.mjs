// The browser's client against a real gateway, without a browser. `node --test` is started by test_client_in_node.py.

import assert from "node:assert/strict";
import { test } from "node:test";

const { CLIENT, GATEWAY, CUTTING, CUTTING_MORE, SHORT, KEY, SHORT_KEY } = process.env;
const { backoff, connect, fold, newState, openRun, sseParser } = await import(CLIENT);

const LOG = { type: "log", data: { level: "info", message: "working" } };
const DONE = { type: "run.completed", data: { output: { answer: 42 } } };

async function call(method, path, body, { base = GATEWAY, key = KEY } = {}) {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const answer = await fetch(`${base}/v1/${path}`, { method, headers, body: body && JSON.stringify(body) });
  const told = await answer.json();
  assert.ok(answer.ok, JSON.stringify(told));
  return told;
}

const create = (where) => call("POST", "runs", { agent_id: "tester", mode: "direct" }, where);
const append = (run, events, where) =>
  call("POST", `runs/${run.id}/events`, { events, attempt: run.attempt }, where);
const seqs = (events) => events.map(({ seq }) => seq);
const upTo = (last) => Array.from({ length: last }, (_, index) => index + 1);

/** Follow a run until `enough(run)`, and return the handle and all of its events. */
function follow(id, options, enough = (run) => run.state.link === "ended") {
  const events = [];
  return new Promise((resolve, reject) => {
    const run = openRun(id, {
      base: GATEWAY, key: KEY, ...options,
      onEvent: (event) => events.push(event),
      onState(state) {
        if (state.problem && !options?.forgives) reject(new Error(JSON.stringify(state.problem)));
        else if (enough({ state, events })) resolve({ run: Object.assign(run, { events }), events, state });
      },
    });
  });
}

// A wait for tests: the client tells of every batch of news.
const nothing = connect({ base: GATEWAY, key: KEY, identity: "nothing" }).openRun("01ARZ3NDEKTSV4RRFFQ69G5FAV");
const proto = Object.getPrototypeOf(nothing);
nothing.close();
proto.until = function (condition) {
  const said = this.options.onState;
  return new Promise((resolve) => {
    const look = () => {
      if (!condition(this)) return;
      this.options.onState = said;
      resolve();
    };
    this.options.onState = (state) => (said?.(state), look());
    look();
  });
};

test("a frame may come in any pieces, with pings between its lines", () => {
  const text = ': ping\nid: 1-5\ndata: {"a":1}\n\nevent: stream.open\n: ping\ndata: {}\n\nretry: 2000\n\n';
  for (const size of [1, 2, 7, 100]) {
    const frames = [];
    const parse = sseParser((frame) => frames.push(frame));
    for (let at = 0; at < text.length; at += size) parse(text.slice(at, at + size));
    assert.deepEqual(frames, [{ id: "1-5", data: '{"a":1}' }, { event: "stream.open", data: "{}" }]);
  }
});

test("waits are spread from nothing to a bound that doubles up to fifteen seconds", () => {
  assert.equal(backoff(0, () => 0), 0);
  assert.deepEqual([0, 1, 2, 9].map((failures) => backoff(failures, () => 1)), [500, 1000, 2000, 15_000]);
});

test("an event that was folded before changes nothing", () => {
  const event = { seq: 1, attempt: 1, type: "message.delta", created_at: "2026-01-01T00:00:00.000Z", data: { content: "a" } };
  const state = fold(fold(newState("r"), event), event);
  assert.equal(state.messages[0].content, "a");
});

const BUSY = [
  { type: "step.started", step_id: "s1", data: { step_id: "s1", name: "survey", input: { a: 1 } } },
  { type: "tool.call", step_id: "s1", data: { call_id: "c1", name: "grep", input: "x" } },
  { type: "tool.progress", data: { call_id: "c1", progress: 0.5 } },
  { type: "tool.result", data: { call_id: "c1", output: [1], status: "ok", duration_ms: 3 } },
  { type: "message.delta", step_id: "s1", data: { content: "Hel" } },
  { type: "message.delta", data: { content: "other" } },
  { type: "message.delta", step_id: "s1", data: { content: "lo" } },
  { type: "message.completed", step_id: "s1", data: { content: "Hello.", message_id: "m1", role: "assistant" } },
  { type: "step.failed", data: { step_id: "s1", error: { code: "c", message: "m" }, duration_ms: 5 } },
  { type: "step.completed", data: { step_id: "s0", duration_ms: 1, output: 2 } },
  { type: "usage.recorded", data: { provider: "p", model: "m", prompt_tokens: 3, completion_tokens: 4, cost_microusd: 7 } },
  { type: "output.set", data: { key: "k", value: 1 } },
  { type: "output.set", data: { key: "k", value: 2 } },
  { type: "checkpoint.created", data: { source: "s", state: { at: 1 } } },
  { type: "file.created", data: { file_id: "f", name: "a.md", size_bytes: 3, content_type: "text/markdown" } },
  { type: "step.started", data: { step_id: "s2", name: "left open" } },
  { type: "tool.call", data: { call_id: "c2", name: "left open", input: null } },
  LOG,
  { type: "run.waiting_for_input", data: { prompt: "Go on?", schema: { type: "boolean" }, request_id: "q1" } },
];
const SAY = { type: "message.delta", data: { message_id: "long", content: "so \u{1f600} " } };
const SAVE = { type: "checkpoint.created", data: { source: "s", state: null } };
const FOLDED = ["as_of_seq", "attempt", "output", "error", "steps", "tool_calls", "messages", "usage", "totals", "outputs",
  "checkpoints", "files", "questions", "history", "logs", "log_count", "boundary_seq", "cuts"];

/** What the gateway shows, and of ours the same fields; nothing is null. */
function shared(theirs, ours) {
  if (Array.isArray(theirs)) return theirs.map((entry, index) => shared(entry, ours?.[index]));
  if (theirs === null || typeof theirs !== "object") return ours ?? null;
  return Object.fromEntries(Object.entries(theirs).map(([name, value]) => [name, shared(value, ours?.[name])]));
}

async function checkFold(run, state) {
  const { state: theirs, run: record } = await call("GET", `runs/${run.id}/snapshot`);
  assert.equal(state.status, record.status);
  for (const name of FOLDED) {
    assert.deepEqual(shared(theirs[name], state[name]), theirs[name], name);
    if (Array.isArray(theirs[name])) assert.equal(state[name].length, theirs[name].length, name);
  }
}

test("the fold is the gateway's own, at every turn of a run that is asked, paused and begun again", async () => {
  const run = await create();
  await append(run, BUSY);
  const turns = [
    null, ["input", { content: true }], ["pause", {}], ["resume", {}], ["restart", {}], "again", ["pause", {}],
    ["cancel", { force: true }], ["restart", {}], "again", "cut", ["restart", { from_checkpoint: true }], "again", "cut", "done",
  ];
  const { run: live } = await follow(run.id, {}, ({ events }) => events.length >= BUSY.length);
  for (const turn of turns) {
    if (turn === "again") await append(run, BUSY.slice(0, 8));
    else if (turn === "cut") await append(run, [SAY, SAVE, SAY]);
    else if (turn === "done") await append(run, [DONE]);
    else if (turn) await call("POST", `runs/${run.id}/${turn[0]}`, turn[1]);
    run.attempt = (await call("GET", `runs/${run.id}`)).attempt;
    const head = (await call("GET", `runs/${run.id}`)).head_seq;
    // The end of one attempt may be told after the next has begun.
    await live.until(({ state }) => {
      if (state.link === "ended" && state.as_of_seq < head) live.reconnect();
      return state.as_of_seq >= head;
    });
    await checkFold(run, live.state);
    const { run: late } = await follow(run.id, { snapshot: true }, ({ state }) => state.as_of_seq >= head && state.status);
    await checkFold(run, late.state);
    late.close();
  }
  live.close();
});

test("a snapshot goes on as if its events had been read", async () => {
  const run = await create();
  await append(run, BUSY.slice(0, 7));
  const { run: late } = await follow(run.id, { snapshot: true }, ({ state }) => state.messages.length);
  assert.deepEqual(late.events, []);
  await append(run, [...BUSY.slice(7), ...BUSY.slice(4, 8)]);
  const head = (await call("GET", `runs/${run.id}`)).head_seq;
  await late.until(({ state }) => state.as_of_seq >= head);
  await checkFold(run, late.state);
  late.close();
});

for (const transport of ["sse", "ws"]) {
  test(`over ${transport}: all events, each once, then the end`, async () => {
    const run = await create();
    await append(run, Array(50).fill(LOG));
    const following = follow(run.id, { transport });
    await append(run, [...Array(50).fill(LOG), DONE]);
    const { events, state } = await following;
    assert.deepEqual(seqs(events), upTo(state.head_seq));
    assert.deepEqual([state.link, state.status, state.behind], ["ended", "completed", 0]);
  });

  test(`over ${transport}: from a cursor on`, async () => {
    const run = await create();
    await append(run, [LOG, LOG, LOG, DONE]);
    const first = await follow(run.id, { transport });
    const { events } = await follow(run.id, { transport, after: 3 });
    assert.deepEqual(seqs(events), [4, 5, 6, 7]);
    const { events: rest } = await follow(run.id, { transport, after: first.run.cursor });
    assert.deepEqual(rest, []);
  });

  test(`over ${transport}: cut again and again, nothing is lost and nothing comes twice`, async () => {
    const run = await create();
    const following = follow(run.id, { transport, base: CUTTING });
    for (let batch = 0; batch < 30; batch++) await append(run, Array(20).fill(LOG));
    await append(run, [DONE]);
    const { events, state } = await following;
    assert.deepEqual(seqs(events), upTo(state.head_seq));
  });

  test(`over ${transport}: tickets that expire are renewed by a callback`, async () => {
    const where = { base: SHORT, key: SHORT_KEY };
    const run = await create(where);
    const shown = [];
    const ticket = async ({ runs, stale }) => {
      shown.push(stale);
      return (await call("POST", "tickets", { runs, scopes: ["runs:read"] }, where)).ticket;
    };
    const following = follow(run.id, { transport, base: SHORT, ticket, identity: `${transport}-expiry` });
    for (let batch = 0; batch < 25; batch++) {
      await append(run, [LOG], where);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await append(run, [DONE], where);
    const { events, state } = await following;
    assert.deepEqual(seqs(events), upTo(state.head_seq));
    assert.ok(shown.length >= 2, `asked ${shown.length} times`);
    assert.ok(shown[1], "the one that expired is named");
  });

  for (const form of ["whole", "text"]) test(`over ${transport}: each connection has a ticket of its own (${form})`, async () => {
    const run = await create();
    const shown = new Set(), refused = [];
    const ticket = async ({ runs, stale }) => {
      const made = await call("POST", "tickets", { runs, scopes: ["runs:read"], single_use: true });
      if (stale) assert.ok(shown.has(stale), "it was shown before");
      shown.add(made.ticket);
      return form === "whole" ? made : made.ticket;
    };
    const { fetch } = globalThis, { random } = Math;
    Math.random = () => 0.02;
    globalThis.fetch = async (...asked) => {
      const answer = await fetch(...asked);
      if (answer.status === 401) refused.push((await answer.clone().json()).reason);
      return answer;
    };
    try {
      const identity = `${transport}-once-${form}`;
      const following = follow(run.id, { key: undefined, transport, base: CUTTING_MORE, ticket, identity });
      // Longer than any connection lasts.
      const until = Date.now() + 1_200;
      while (Date.now() < until || shown.size < 2) {
        await append(run, Array(5).fill(LOG));
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      await append(run, [DONE]);
      const { events, state } = await following;
      assert.deepEqual(seqs(events), upTo(state.head_seq));
    } finally {
      globalThis.fetch = fetch;
      Math.random = random;
    }
    if (form === "whole") assert.deepEqual(refused, []);
    assert.ok(refused.every((reason) => reason === "ticket_used"), refused.join());
  });

  test(`over ${transport}: a run that is not there fails alone`, async () => {
    const run = await create();
    await append(run, [LOG]);
    const [good, bad] = await Promise.all([
      follow(run.id, { transport, identity: "mixed" }, ({ events }) => events.length === 4),
      follow("01ARZ3NDEKTSV4RRFFQ69G5FAV", { transport, identity: "mixed", forgives: true }, ({ state }) => state.problem),
    ]);
    assert.equal(bad.state.problem.code, "not_found");
    assert.equal(bad.state.link, "failed");
    await append(run, [DONE]);
    await good.run.until(({ state }) => state.link === "ended");
    assert.deepEqual(seqs(good.events), upTo(5));
  });
}

test("more runs than one stream takes share one socket", async () => {
  const runs = await Promise.all(Array.from({ length: 40 }, () => create()));
  const all = runs.map((run) => follow(run.id, { identity: "crowd" }));
  for (const run of runs) await append(run, [LOG, DONE]);
  for (const { events, state } of await Promise.all(all)) assert.deepEqual(seqs(events), upTo(state.head_seq));
});

test("whoever comes later gets the beginning, and whoever was there nothing twice", async () => {
  const run = await create();
  await append(run, [LOG, LOG]);
  const first = await follow(run.id, { identity: "two" }, ({ events }) => events.length === 5);
  const second = await follow(run.id, { identity: "two" }, ({ events }) => events.length === 5);
  const third = await follow(run.id, { identity: "two", snapshot: true }, ({ state }) => state.as_of_seq === 5);
  await append(run, [LOG, DONE]);
  for (const { run: each } of [first, second, third]) await each.until(({ state }) => state.link === "ended");
  assert.deepEqual([seqs(first.events), seqs(second.events), seqs(third.events)], [upTo(7), upTo(7), [6, 7]]);
});

test("a gap and a reset are told, and what follows is shown", async () => {
  const run = await create();
  await append(run, [LOG, LOG, LOG, DONE]);
  const told = [];
  const onControl = (name, facts) => told.push([name, facts.first_seq ?? facts.reason]);
  const ahead = await follow(run.id, { after: "99-1", onControl });
  assert.deepEqual(told, [["stream.reset", "ahead_of_log"]]);
  assert.deepEqual(seqs(ahead.events), upTo(7));
  assert.equal(ahead.state.reset.reason, "ahead_of_log");
  await call("POST", `runs/${run.id}/purge`, { through_seq: 3 });
  const short = await follow(run.id, { onControl });
  assert.deepEqual(told[1], ["stream.gap", 4]);
  assert.deepEqual(seqs(short.events), [4, 5, 6, 7]);
  assert.equal(short.state.gap.first_seq, 4);
});

test("it is iterated, more than is kept in between included", async () => {
  const run = await create();
  for (let batch = 0; batch < 12; batch++) await append(run, Array(1000).fill(LOG));
  await append(run, [DONE]);
  const seen = [];
  for await (const event of openRun(run.id, { base: GATEWAY, key: KEY, identity: "iterated" })) {
    seen.push(event.seq);
    if (seen.length % 1000 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.deepEqual(seen, upTo(12_004));
});

test("a run is steered", async () => {
  const run = await create();
  await append(run, [LOG, { type: "run.waiting_for_input", data: { prompt: "?" } }]);
  const { run: live } = await follow(run.id, {}, ({ state }) => state.status === "waiting_for_input");
  assert.equal((await live.input("yes")).ok, true);
  assert.equal((await live.pause({ reason: "tea" })).status, "paused");
  assert.equal((await live.resume()).status, "running");
  await assert.rejects(live.resume(), ({ status, problem }) => status === 409 && problem.code === "invalid_state");
  await live.cancel({ force: true });
  await live.until(({ state }) => state.link === "ended");
  assert.equal((await live.retry()).retry_of, run.id);
  assert.equal((await live.replay()).replay_of, run.id);
  await live.restart();
  await live.until(({ state }) => state.status === "queued" && state.link === "live");
  assert.deepEqual(seqs(live.events), upTo(live.state.head_seq));
  live.close();
});

test("a page with tickets only acts in its own way", async () => {
  const run = await create();
  await append(run, [LOG]);
  const options = { base: GATEWAY, ticket: async () => "none", identity: "own way" };
  const act = (id, verb, body) => call("POST", `runs/${id}/${verb}`, body);
  const live = connect({ ...options, act }).openRun(run.id);
  assert.equal((await live.pause()).status, "paused");
  live.close();
});

test("a ticket that ended in a long outage is renewed after it", async () => {
  const run = await create();
  await append(run, [LOG]);
  const { fetch } = globalThis, { random } = Math, stales = [];
  Math.random = () => 0.02;
  let away = 0;
  globalThis.fetch = (url, ...more) =>
    `${url}`.includes("/v1/stream") && ++away <= 4 ? Promise.reject(new TypeError("away")) : fetch(url, ...more);
  const ticket = async ({ stale }) => {
    stales.push(stale ?? null);
    return stale ? (await call("POST", "tickets", { tenant: true })).ticket : "expired";
  };
  try {
    const { events } = await follow(run.id, { key: undefined, ticket, identity: "outage" }, ({ events }) => events.length === 4);
    assert.deepEqual(seqs(events), upTo(4));
  } finally {
    globalThis.fetch = fetch;
    Math.random = random;
  }
  assert.deepEqual(stales, [null, "expired"]);
});

test("a ticket that nobody gives ends it", async () => {
  const ticket = async () => { throw Object.assign(new Error("Signed out."), { status: 401 }); };
  const run = await create();
  const { state } = await follow(run.id, { key: undefined, ticket, identity: "out", forgives: true }, ({ state }) => state.problem);
  assert.deepEqual([state.link, state.problem.detail], ["failed", "Signed out."]);
});

test("the feed tells of changes from now on", async () => {
  const heard = [];
  let live;
  const ready = new Promise((resolve) => {
    const onState = ({ link }) => link === "live" && resolve();
    live = connect({ base: GATEWAY, key: KEY, identity: "feed" }).feed({ onEvent: (event) => heard.push(event), onState });
  });
  await ready;
  const run = await create();
  await append(run, [DONE]);
  await live.until(() => heard.some(({ run_id, data }) => run_id === run.id && data.status === "completed"));
  live.close();
});

test("a feed that breaks before its first change has what came meanwhile", async (t) => {
  const { fetch: real } = globalThis, heard = [];
  let cut, live, feeds = 0;
  t.after(() => { globalThis.fetch = real; live.close(); });
  const broken = new Promise((resolve) => { cut = resolve; });
  // The first connection brings its first frame and nothing more until it breaks.
  globalThis.fetch = async (url, init) => {
    const answer = await real(url, init);
    if (!`${url}`.includes("/v1/feed") || ++feeds > 1) return answer;
    const reader = answer.body.getReader();
    let text = "";
    return new Response(new ReadableStream({
      async pull(to) {
        if (text.includes("stream.open")) {
          await broken;
          return to.error(new Error("cut"));
        }
        const { value } = await reader.read();
        text += new TextDecoder().decode(value);
        to.enqueue(value);
      },
    }), answer);
  };
  await new Promise((resolve) => {
    const onState = ({ link }) => link === "live" && resolve();
    live = connect({ base: GATEWAY, key: KEY, identity: "broken" }).feed({ onEvent: (event) => heard.push(event), onState });
  });
  const run = await create();
  cut();
  await live.until(() => heard.some(({ run_id, data }) => run_id === run.id && data.status === "queued"));
  assert.equal(feeds, 2);
});

test.after(() => setTimeout(() => process.exit(), 50));
