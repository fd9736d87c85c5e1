// A stream that outlives its connections and its tickets: EventSource cannot send a key, so each
// connection shows a ticket, and whatever ends one, the next goes on after the last id.

import { call, streamUrl } from "./api.js";

const BATCH_MS = 30;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
// Browsers open six connections to a host: a tab that nobody sees gives its own back.
const HIDDEN_MS = 30_000;

let ticket = null;

/**
 * Follow a log, and return what ends that. Handlers:
 *   events(list)         new events in order, each once
 *   control(name, facts) stream.gap, stream.reset; after a reset the log is read again from its beginning
 *   state(word)          connecting, catching up, live, reconnecting, asleep, ended, failed
 *   check()              asked after a refusal, whose reason a browser hides: true when the log has
 *                        ended and been read; throws what the gateway says
 *   refused(error)       it is over: no access, nothing there
 * With `fromNow` what the log holds when it is first opened is skipped.
 */
export function follow(path, handlers, { fromNow = false } = {}) {
  let cursor = null;
  let seq = 0;
  let headSeq = 0;
  let failures = 0;
  let state = "";
  let stopped = false;
  let hangUp = () => {};
  let batch = [];

  function tell(word) {
    if (!stopped && word !== state) handlers.state((state = word));
  }

  function flush() {
    if (batch.length && !stopped) handlers.events(batch);
    batch = [];
    if (state === "catching up" && seq >= headSeq) tell("live");
  }

  function take(frame) {
    const event = JSON.parse(frame.data);
    if (event.seq <= seq) return;
    seq = event.seq;
    cursor = frame.lastEventId;
    if (batch.push(event) === 1) setTimeout(flush, BATCH_MS);
  }

  function opened(facts) {
    failures = 0;
    headSeq = facts.head_seq;
    if (fromNow && cursor === null && headSeq > 0) {
      seq = cursor = headSeq;
      return hangUp("again");
    }
    tell(facts.after_seq < headSeq ? "catching up" : "live");
  }

  /** Listen on one connection; resolves to how it ended: end, lost, refused, asleep, again. */
  function listen() {
    const source = new EventSource(streamUrl(path, ticket, cursor));
    const { promise, resolve } = settleable();
    hangUp = resolve;
    const on = (name, act) => source.addEventListener(name, (frame) => (flush(), act(JSON.parse(frame.data))));
    source.onmessage = take;
    source.onerror = () => resolve(source.readyState === EventSource.CLOSED ? "refused" : "lost");
    on("stream.open", opened);
    on("stream.end", () => resolve("end"));
    on("stream.closed", ({ reason }) => {
      if (reason === "ticket_expired") ticket = null;
      resolve("lost");
    });
    on("stream.gap", (facts) => {
      seq = facts.first_seq - 1;
      handlers.control("stream.gap", facts);
    });
    on("stream.reset", (facts) => {
      [seq, cursor, headSeq] = [0, null, facts.head_seq];
      handlers.control("stream.reset", facts);
      tell("catching up");
      // What the gateway goes on with begins too late for a page that has forgotten everything.
      if (facts.valid_through || fromNow) resolve("again");
    });
    const stopWatching = whenHidden(() => resolve("asleep"));
    return promise.finally(() => {
      stopWatching();
      source.close();
      flush();
    });
  }

  async function pause(ms) {
    const { promise, resolve } = settleable();
    hangUp = resolve;
    addEventListener("online", resolve, { once: true });
    const timer = setTimeout(resolve, ms);
    await promise;
    clearTimeout(timer);
    removeEventListener("online", resolve);
  }

  async function run() {
    tell("connecting");
    while (!stopped) {
      let how = "lost";
      try {
        ticket ??= (await call("POST", "tickets", { tenant: true, scopes: ["runs:read"] })).ticket;
        if (!stopped) how = await listen();
        if (how === "refused") ticket = null;
        if (how === "end" || (how === "refused" && (await handlers.check()))) return tell("ended");
      } catch (error) {
        if (!error.passing) return stopped || (tell("failed"), handlers.refused(error));
      }
      if (how === "asleep") tell("asleep");
      if (document.hidden && how === "asleep") await visible();
      if (how === "again") continue;
      tell("reconnecting");
      if (how !== "asleep") await pause(backoff(failures++));
    }
  }

  run();
  return function stop() {
    stopped = true;
    hangUp();
  };
}

function settleable() {
  let resolve;
  const promise = new Promise((settle) => (resolve = settle));
  return { promise, resolve };
}

function backoff(failures) {
  return Math.random() * Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(failures, 10));
}

function visible() {
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

/** Call `act` once the tab has been hidden for long; returns what ends the watching. */
function whenHidden(act) {
  let timer;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(act, HIDDEN_MS);
  };
  look();
  document.addEventListener("visibilitychange", look);
  return () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
  };
}
