// Status changes of all runs, heard once for all pages of the console.

import { openFeed } from "./session.js";
import { signal } from "./ui.js";

export const feedLink = signal("connecting");
const listeners = new Set();

/** Have `listener(event)` told of each change, and of nothing (`null`) when some may have been missed. */
export function hearFeed(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function followFeed(onRefused) {
  const tell = (event) => { for (const listener of listeners) listener(event); };
  let begun = false;
  const feed = openFeed({
    onEvent: tell,
    onControl: () => tell(null),
    onState({ link, problem }) {
      if (problem?.status === 401) onRefused(problem.detail);
      feedLink.value = link.replaceAll("_", " ");
      // What happened before it was followed comes from the lists.
      if (link === "live" && !begun) tell(null);
      begun ||= link === "live";
    },
  });
  return () => feed.close();
}
