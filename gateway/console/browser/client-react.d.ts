import type { ConnectOptions, Run, RunOptions, RunState } from "./client.js";

/** What of React the hook needs. */
export interface ReactHooks {
  useEffect(effect: () => void | (() => void), dependencies?: readonly unknown[]): void;
  useState<T>(initial: T): [T, (next: T) => void];
}

export type UseRun = (
  runId: string | null,
  options?: ConnectOptions & RunOptions,
) => { run: Run | null; state: RunState | null };

export function bindReact(react: ReactHooks): UseRun;
