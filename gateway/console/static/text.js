// What the run says, as it says it; what an abandoned attempt said is struck through.

import { bytes, Dropped, html, useMemo, useState } from "./ui.js";

const SHOWN = 50;
// Text is laid out in pieces, so that a new word moves the last of them only.
const PIECE_CHARS = 2000;

export function Text({ state, follows }) {
  const [most, setMost] = useState(SHOWN);
  // What is being written is looked at from its end, what is finished from its beginning.
  const [fromEnd] = useState(follows);
  const { messages } = state;
  if (!messages.length) return null;
  const shown = messages.slice(-most);
  const ends = ["ended", "failed"].includes(state.link);
  return html`<section data-part="text"><h2>Text</h2>
    <${Dropped} state=${state} />
    ${messages.length > most && html`<button type="button" class="plain" onClick=${() => setMost(most + SHOWN)}>Show ${Math.min(SHOWN, messages.length - most)} earlier</button>`}
    <div class="text" data-from=${fromEnd ? "end" : null} tabindex="0" role="region" aria-label="Text"><div class="messages">${shown.map((message) => html`<${Message} key=${message.seq} message=${message} content=${message.content} withdrawn=${message.superseded}
      open=${!message.completed && !message.superseded && !ends && message.attempt === state.attempt && message === messages.at(-1)} />`)}</div></div>
  </section>`;
}

function Message({ message, content, open }) {
  const { seq, role, attempt, superseded, elided_bytes: elided } = message;
  const cuts = useMemo(() => ({ at: [0] }), [seq]);
  if (cuts.text !== undefined && !content.startsWith(cuts.text.slice(0, 64))) cuts.at = [0];
  cuts.text = content;
  for (;;) {
    const from = cuts.at.at(-1);
    if (content.length - from < PIECE_CHARS * 2) break;
    const line = content.indexOf("\n", from + PIECE_CHARS);
    if (line < 0) break;
    cuts.at.push(line + 1);
  }
  const pieces = cuts.at.map((from, index) => content.slice(from, cuts.at[index + 1]));
  const tag = superseded ? "del" : "div";
  return html`<${tag} class="message" data-seq=${seq} data-open=${open ? "" : null} data-role=${role} data-withdrawn=${superseded ? "" : null}>
    ${superseded && html`<small class="hint">attempt ${attempt}, abandoned</small>`}
    ${role && role !== "assistant" && html`<small class="hint">${role}</small>`}
    ${pieces.map((piece, index) => html`<p key=${index}>${piece}</p>`)}
    ${elided > 0 && html`<small class="hint">${bytes(elided)} more are in the event log.</small>`}
  <//>`;
}
