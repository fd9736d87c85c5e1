// What may be done to a run. What will happen is said before it does.

import { call, runPath } from "./session.js";
import { Dialog, ErrorText, html, useState } from "./ui.js";

const AFTER_FAILURE = ["retry", "replay", "restart"];
const VERBS = {
  delayed: ["cancel"],
  queued: ["pause", "cancel"],
  dequeued: ["pause", "cancel"],
  running: ["pause", "cancel", "restart"],
  waiting_for_input: ["pause", "cancel"],
  paused: ["resume", "cancel", "restart"],
  cancelling: ["cancel"],
  completed: ["replay", "restart"],
  dead_letter: ["dlq-replay", ...AFTER_FAILURE],
};
const TITLES = {
  pause: "Pause", resume: "Resume", cancel: "Cancel", retry: "Retry", replay: "Replay", restart: "Restart", "dlq-replay": "Queue again",
};
const HELD = ["running", "waiting_for_input", "paused"];

/** What a verb will do to this run, in a sentence or two. */
export function foretell(verb, run) {
  const by = run.mode === "queued" ? "its worker" : "whoever executes it";
  const says = {
    pause: HELD.includes(run.status)
      ? `The run is marked as paused and ${by} is told at once; how soon it stops is up to them. No timeout runs while it is paused.`
      : "The run keeps its place, and nobody starts it until it is resumed.",
    resume: "The run goes on where it was: running if somebody still holds it, waiting if a question is open, else queued again.",
    cancel: run.status === "cancelling"
      ? "The run is being cancelled already. It can be ended now, without waiting for a confirmation."
      : HELD.includes(run.status)
        ? `${by[0].toUpperCase()}${by.slice(1)} is asked to stop and has ten seconds to confirm; then the run is cancelled in any case.`
        : "Nobody holds the run: it is cancelled at once.",
    retry: "A new run is made with the same input. This one stays as it is.",
    replay: "A new run is made with the same input. This one stays as it is.",
    restart: `The same run begins again as attempt ${run.attempt + 1}: what this attempt wrote stays in the log, struck through${HELD.includes(run.status) ? `, and ${by} can write no more` : ""}.`,
    "dlq-replay": "The same run is queued again as its first attempt.",
  };
  return says[verb];
}

export function Actions({ run, onRun }) {
  const [verb, setVerb] = useState(null);
  const verbs = VERBS[run.status] ?? AFTER_FAILURE;
  return html`<div class="actions" data-part="actions" role="group" aria-label="Actions">
    ${verbs.map((each) => html`<button key=${each} type="button" data-verb=${each} onClick=${() => setVerb(each)}>${TITLES[each]}</button>`)}
    ${verb && html`<${Confirm} verb=${verb} run=${run} onClose=${() => setVerb(null)} onRun=${(told) => { setVerb(null); onRun(told); }} />`}
  </div>`;
}

function Confirm({ verb, run, onClose, onRun }) {
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const canForce = verb === "cancel" && (HELD.includes(run.status) || run.status === "cancelling");
  const canContinue = verb === "restart" && run.checkpoint_seq;
  async function submit(event) {
    event.preventDefault();
    const given = new FormData(event.target);
    const body = {};
    if (given.get("reason")?.trim()) body.reason = given.get("reason").trim();
    if (given.get("force")) body.force = true;
    if (given.get("continue")) body.from_checkpoint = true;
    setBusy(true);
    try {
      onRun(await call("POST", runPath(run.id, verb), body));
    } catch (refusal) {
      setError(refusal.message);
      setBusy(false);
    }
  }
  return html`<${Dialog} title=${`${TITLES[verb]} this run?`} onClose=${onClose}>
    <form onSubmit=${submit} inert=${busy}>
      <p data-part="foretold">${foretell(verb, run)}</p>
      <label>Reason<input name="reason" maxlength="1000" autocomplete="off" placeholder="for the audit trail, if you like" /></label>
      ${canForce && html`<label class="check"><input type="checkbox" name="force" defaultChecked=${run.status === "cancelling"} /> Do not wait for the confirmation</label>`}
      ${canContinue && html`<label class="check"><input type="checkbox" name="continue" /> Go on from the last checkpoint (event ${run.checkpoint_seq})</label>`}
      <${ErrorText} error=${error} part="error" />
      <div class="buttons"><button class="main" data-confirm autofocus>${TITLES[verb]}</button>
        <button type="button" data-close onClick=${onClose}>Leave as it is</button></div>
    </form>
  <//>`;
}
