// What a page does with the client, as the compiler sees it. Lines after `@ts-expect-error` must not compile.

import { backoff, connect, fold, newState, openRun, sseParser, type Link, type Question, type RunEvent, type RunState } from "./client.js";
import { bindReact } from "./client-react.js";

const lines: string[] = [];
const client = connect({ base: "https://gateway.example", ticket: async ({ runs, stale }) => `${runs.join()} ${stale ?? ""}` });
const run = client.openRun("01J", {
  after: "12-ab",
  snapshot: true,
  onEvent: (event, cursor) => lines.push(`${event.seq} ${event.type} ${cursor}`),
  onState: (state) => show(state),
  onControl: (name, facts) => name === "stream.gap" && lines.push(facts.first_seq),
});

function show(state: RunState): void {
  const link: Link = state.link;
  const words = state.messages.filter(({ superseded }) => !superseded).map(({ content }) => content);
  const calls = state.tool_calls.map(({ call_id, name, duration_ms }) => `${call_id} ${name ?? ""} ${duration_ms ?? 0}`);
  const open: Question[] = Object.values(state.questions).filter(({ status }) => status === "open");
  const { prompt_tokens: tokens } = state.totals;
  const gap = state.gap?.first_seq ?? 0, reset = state.reset?.reason ?? "", why = state.problem?.detail ?? "";
  lines.push(link, ...words, ...calls, ...open.map(({ prompt }) => prompt), `${tokens} ${gap} ${reset} ${why} ${state.behind}`);
  // @ts-expect-error
  state.link = "broken";
  // @ts-expect-error
  state.messages[0].text;
}

async function follow(): Promise<void> {
  for await (const event of openRun("01J", { key: "gwk_", transport: "ws", share: false })) {
    if ("seq" in event) lines.push(event.data.content);
    else lines.push(event.type);
  }
  await run.input({ name: "shelf" }, { request_id: "r1" });
  await run.cancel({ force: true, reason: "enough" });
  await run.restart({ from_checkpoint: true });
  for (const act of [run.pause, run.resume, run.retry, run.replay]) await act.call(run, { triggered_by: "ann" });
  // @ts-expect-error
  await run.explode();
  const changes = client.feed({ onEvent: (event: RunEvent<{ status: string }>) => lines.push(event.data.status) });
  changes.close();
  lines.push(run.cursor ?? "", (await client.call("GET", "runs/01J")).id);
}

const state: RunState = fold(newState("01J"), { seq: 1, type: "log", run_id: "01J", created_at: "", attempt: 1, data: {} });
sseParser(({ event, data, id }) => lines.push(event ?? "", data, id ?? ""))(": ping\n");
lines.push(`${backoff(3)} ${backoff(3, () => 0.5)} ${state.as_of_seq}`);
// @ts-expect-error
connect({ transport: "carrier pigeon" });
// @ts-expect-error
openRun(7);

const useRun = bindReact({ useEffect: (effect) => void effect(), useState: (initial) => [initial, () => undefined] });
const seen = useRun(null, { key: "gwk_", onState: show });
lines.push(seen.state?.status ?? seen.run?.id ?? "");
void follow();
