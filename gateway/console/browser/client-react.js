// React's view of the browser's client; `React` itself is handed in, so that no build step and no bundler is needed.

import { connect } from "./client.js";

/** Return the hook `useRun` over the React that the page uses. */
export function bindReact({ useEffect, useState }) {
  /** Follow a run for as long as the component is there: `{run, state}`, rendered at most once a frame. */
  return function useRun(runId, options = {}) {
    const [seen, setSeen] = useState({ run: null, state: null });
    useEffect(() => {
      if (!runId) return undefined;
      let frame = 0;
      const show = () => {
        frame = 0;
        setSeen({ run, state: { ...run.state } });
      };
      const onState = (state) => {
        frame ||= globalThis.requestAnimationFrame ? requestAnimationFrame(show) : setTimeout(show, 16);
        options.onState?.(state);
      };
      const run = connect(options).openRun(runId, { ...options, onState });
      show();
      return () => {
        if (globalThis.cancelAnimationFrame) cancelAnimationFrame(frame);
        else clearTimeout(frame);
        run.close();
      };
    }, [runId, options.base, options.key, options.identity, options.after, options.snapshot]);
    return runId ? seen : { run: null, state: null };
  };
}
