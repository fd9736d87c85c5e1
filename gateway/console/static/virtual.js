// A list of any length, of which only the rows in view exist.

import { html, useEffect, useRef, useState } from "./ui.js";

// Browsers do not lay out boxes beyond some tens of millions of pixels: a longer list is scrolled in proportion.
const TALLEST_PX = 8_000_000;
const AROUND = 4;
const MOVES = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };

/**
 * `row(index)` renders a row; `follow` keeps the end in view while it is; `onSeen(first, last)` says what is in view;
 * `onPick(index)` when a row is chosen by click or Enter. `turn` changes when rows have changed.
 */
export function VirtualList({ total, rowPx, label, row, rowKey, follow, onSeen, onPick, picked, onKey }) {
  const box = useRef();
  const [active, setActive] = useState(-1);
  const atEnd = useRef(Boolean(follow));
  const lastTop = useRef(0);
  const full = total * rowPx;
  const tall = Math.min(full, TALLEST_PX);
  const [view, setView] = useState({ top: follow ? Math.max(0, tall - 10 * rowPx) : 0, height: 10 * rowPx });
  const room = Math.max(1, tall - view.height);
  const virtualTop = full > tall ? (Math.min(view.top, room) / room) * (full - view.height) : view.top;
  const first = Math.max(0, Math.floor(virtualTop / rowPx) - AROUND);
  const last = Math.min(total - 1, Math.ceil((virtualTop + view.height) / rowPx) + AROUND);

  // Before anything looks at what is in view: the beginning of a long log need not be read to show its end.
  useEffect(() => {
    if (follow && atEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [total, view.height]);
  useEffect(() => {
    const look = (scrolled) => {
      const { scrollTop: top, clientHeight: height, scrollHeight } = box.current;
      // Whoever scrolls up leaves the end; that it moved away by itself is no reason to.
      if (scrolled && top < lastTop.current) atEnd.current = false;
      if (scrolled && scrollHeight - top - height < rowPx * 1.5) atEnd.current = Boolean(follow);
      lastTop.current = top;
      setView((before) => (before.top === top && before.height === height ? before : { top, height }));
    };
    const watch = new ResizeObserver(() => look());
    watch.observe(box.current);
    box.current.addEventListener("scroll", look, { passive: true });
    look();
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    if (total) onSeen?.(first, last);
  }, [first, last, total]);

  function move(index) {
    const at = Math.max(0, Math.min(total - 1, index));
    setActive(at);
    const { clientHeight: height } = box.current;
    const wanted = at * rowPx;
    if (wanted >= virtualTop && wanted + rowPx <= virtualTop + height) return;
    const to = wanted < virtualTop ? wanted : wanted + rowPx - height;
    box.current.scrollTop = full > tall ? (to / (full - height)) * room : to;
  }
  function press(event) {
    if (event.key in MOVES) {
      // Whoever comes in begins with the first row in view.
      move(active < 0 && event.key === "ArrowDown" ? Math.ceil(virtualTop / rowPx) : Math.max(active, 0) + MOVES[event.key]);
      event.preventDefault();
    } else if (event.key === "Enter" && active >= 0) onPick?.(active);
    else onKey?.(event, active);
  }
  const id = (index) => `${label.replace(/\W/g, "-")}-${index}`;
  const rows = [];
  for (let index = first; index <= last; index++) {
    const y = index * rowPx - virtualTop + Math.min(view.top, room);
    rows.push(html`<div key=${rowKey?.(index) ?? index} id=${id(index)} class="row" role="option" aria-selected=${index === picked}
      data-active=${index === active ? "" : null} aria-setsize=${total} aria-posinset=${index + 1}
      style=${{ transform: `translateY(${full > tall ? y : index * rowPx}px)`, height: `${rowPx}px` }}
      onClick=${() => { setActive(index); onPick?.(index); }}>${row(index)}</div>`);
  }
  return html`<div class="virtual" ref=${box} tabindex="0" role="listbox" aria-label=${label} onKeyDown=${press}
      aria-activedescendant=${active >= first && active <= last ? id(active) : null}>
    <div class="spacer" role="presentation" style=${{ height: `${tall}px` }}>${rows}</div>
  </div>`;
}
