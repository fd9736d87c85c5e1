/** The browser's client of the run gateway; docs/browser.md says how to use it. */

export type Status =
  | "delayed" | "queued" | "dequeued" | "running" | "waiting_for_input" | "paused" | "cancelling" | "completed"
  | "failed" | "cancelled" | "timed_out" | "crashed" | "system_failed" | "expired" | "dead_letter";

/** How far what is shown is to be believed. */
export type Link = "connecting" | "catching_up" | "live" | "reconnecting" | "asleep" | "ended" | "failed";

export interface RunEvent<Data = any> {
  seq: number;
  type: string;
  run_id: string;
  created_at: string;
  attempt: number;
  step_id?: string;
  parent_id?: string;
  data: Data;
}

export interface Problem {
  status: number;
  detail?: string;
  title?: string;
  code?: string;
  [fact: string]: unknown;
}

export interface Gap { requested: number; first_seq: number }
export interface Reset { reason: string; valid_through: number; head_seq: number }

interface Entry { seq: number; attempt: number; superseded: boolean; step_id: string | null }

export interface Step extends Entry {
  step_id: string;
  parent_id: string | null;
  name: string | null;
  status: "started" | "completed" | "failed" | "abandoned";
  input: unknown;
  output: unknown;
  error: unknown;
  started_at: string | null;
  ended_at: string | null;
  duration_ms: number | null;
}

export interface ToolCall extends Entry {
  call_id: string;
  name: string | null;
  /** running, abandoned, or what its result said. */
  status: string;
  input: unknown;
  progress: unknown;
  output: unknown;
  started_at: string | null;
  ended_at: string | null;
  duration_ms: number | null;
}

export interface Message extends Entry {
  message_id: string | null;
  role: string | null;
  /** The deltas so far, or the whole text once `completed`. */
  content: string;
  elided_bytes: number;
  completed: boolean;
  created_at: string;
  ended_at: string | null;
}

export interface Question {
  seq: number;
  request_id: string;
  prompt: string;
  schema: unknown;
  status: "open" | "answered" | "closed";
  deadline_at: string | null;
  on_timeout: "fail" | "cancel" | "default" | "keep" | null;
  default: unknown;
  content: unknown;
  actor: unknown;
  reason: string | null;
  closed_at: string | null;
  closed_seq: number | null;
}

export interface Totals {
  prompt_tokens: number;
  completion_tokens: number;
  cached_tokens: number;
  cost_microusd: number;
  credits_micro: number;
}

/** A run as of event `as_of_seq`: what its log folds to, and how the connection stands. */
export interface RunState {
  run_id: string;
  status: Status | null;
  link: Link;
  attempt: number;
  as_of_seq: number;
  head_seq: number;
  /** How many events it lacks, as far as it knows. */
  behind: number;
  /** Events were trimmed before they could be read. */
  gap: Gap | null;
  /** The log was found to be another one; the state began anew. */
  reset: Reset | null;
  /** Why `link` is failed. */
  problem: Problem | null;
  output: unknown;
  error: unknown;
  steps: Step[];
  tool_calls: ToolCall[];
  messages: Message[];
  usage: Record<string, any>[];
  totals: Totals;
  outputs: Record<string, { seq: number; attempt: number; key: string; value: unknown; superseded: boolean }>;
  checkpoints: { seq: number; attempt: number; created_at: string; source: string; state: unknown }[];
  files: (Entry & { file_id: string; name: string; size_bytes: number; content_type: string; created_at: string })[];
  questions: Record<string, Question>;
  history: { seq: number; attempt: number; type: string; at: string; actor: any; reason: any }[];
  /** The last 200 of `log_count` log lines. */
  logs: { seq: number; at: string; step_id: string | null; level: string; message: string; data: unknown }[];
  log_count: number;
}

export interface ConnectOptions {
  /** Where the gateway is; by default, where this module came from. */
  base?: string;
  /** An API key: tickets are made with it. Only where whoever opens the page may have it. */
  key?: string;
  /** Return a ticket for these runs, all of them when the list is empty; `stale` is one that works no more.
   *  Return what `POST /v1/tickets` answered, whole, where it opens one connection (`single_use`): each gets its own.
   *  Throw an error whose `status` is 401 or 403 to end it all. */
  ticket?(wanted: { runs: string[]; stale: string | null }): Promise<string | { ticket: string; single_use?: boolean }>;
  /** Act on a run in the page's own way, for pages that have tickets only. */
  act?(runId: string, verb: string, body: object): Promise<any>;
  /** Who is signed in; tabs of different identities share nothing. By default told from `key`. */
  identity?: string;
  /** Beyond 16 runs a WebSocket is used whatever this says. */
  transport?: "sse" | "ws";
  /** false: this page keeps a connection of its own. */
  share?: boolean;
}

export interface RunOptions {
  /** Begin after this cursor or seq; by default at the beginning. */
  after?: string | number;
  /** Begin with the folded state instead of the events that made it. */
  snapshot?: boolean;
  onEvent?(event: RunEvent, cursor: string): void;
  /** Called after each batch of news with the state, which changes in place. */
  onState?(state: RunState): void;
  onControl?(name: "stream.gap" | "stream.reset" | "stream.snapshot", facts: any): void;
}

export interface Act { reason?: string; triggered_by?: string }

export interface Run extends AsyncIterable<RunEvent | { type: "stream.gap" | "stream.reset"; data: any }> {
  readonly id: string;
  readonly state: RunState;
  /** Where to go on from, another time. */
  readonly cursor: string | null;
  close(): void;
  /** Follow on from where it stands: at once, or again after the end. */
  reconnect(): void;
  cancel(how?: Act & { force?: boolean }): Promise<any>;
  pause(how?: Act): Promise<any>;
  resume(how?: Act): Promise<any>;
  /** A new run with the same input. */
  retry(how?: Act): Promise<any>;
  replay(how?: Act): Promise<any>;
  restart(how?: Act & { preset?: string; from_checkpoint?: boolean | number }): Promise<any>;
  input(content: unknown, how?: { request_id?: string; triggered_by?: string }): Promise<any>;
}

export interface Client {
  openRun(runId: string, options?: RunOptions): Run;
  /** Status changes of all runs, from now on. */
  feed(options?: Pick<RunOptions, "onEvent" | "onState" | "onControl">): Run;
  /** Call the API below /v1/; what got no answer is repeated under the same idempotency key. */
  call(method: string, path: string, body?: unknown): Promise<any>;
}

export function connect(options?: ConnectOptions): Client;
export function openRun(runId: string, options?: ConnectOptions & RunOptions): Run;
export function newState(runId: string): RunState;
export function fold(state: RunState, event: RunEvent): RunState;
export function sseParser(onFrame: (frame: { event?: string; data: string; id?: string }) => void): (text: string) => void;
export function backoff(failures: number, random?: () => number): number;
