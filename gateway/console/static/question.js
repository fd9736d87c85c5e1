// One open question as a form that fits its schema.

import { call, runPath } from "./api.js";
import { el, json, say, ticking } from "./dom.js";

const AT_DEADLINE = { fail: "the run fails", cancel: "the run is cancelled", default: "the default counts" };

export function questionCard(runId, asked) {
  const error = el("p", { class: "error", role: "alert", hidden: true });
  const form = el("form", { class: "field" }, ...controls(asked));
  form.addEventListener("submit", async (submit) => {
    submit.preventDefault();
    say(error, null);
    form.inert = true;
    try {
      const content = read(asked.schema, form.querySelector("input, textarea"), submit.submitter);
      await call("POST", runPath(runId, "input"), { request_id: asked.request_id, content });
      // The form is about to go; who came here by keyboard stays on the page.
      document.getElementById("page").focus({ preventScroll: true });
    } catch (refusal) {
      say(error, refusal.message);
      form.inert = false;
    }
  });
  return el("article", { class: "question" }, el("h2", {}, asked.prompt), form, deadline(asked), error);
}

/** The values to choose from; undefined where the answer is to be written. */
function choices(schema) {
  if (Array.isArray(schema?.enum)) return schema.enum;
  return schema?.type === "boolean" ? [true, false] : undefined;
}

function controls({ schema, prompt }) {
  const button = (text, value) => el("button", { value, class: value ? null : "main" }, text);
  const values = choices(schema);
  if (values) return values.map((value, index) => button(label(value), index));
  const hint = schema ? (schema.type === "string" ? "Your answer" : `JSON: ${schema.type ?? "any"}`) : "Text or JSON";
  const about = { "aria-label": prompt, placeholder: hint, autocomplete: "off" };
  const oneLine = !schema || schema.type === "string";
  return [oneLine ? el("input", about) : el("textarea", { ...about, rows: 3, required: true }), button("Send", 0)];
}

function label(value) {
  if (typeof value === "boolean") return value ? "Yes" : "No";
  return json(value, 200);
}

function read(schema, box, pressed) {
  const values = choices(schema);
  if (values) return values[Number(pressed.value)];
  if (schema?.type === "string") return box.value;
  try {
    return JSON.parse(box.value);
  } catch {
    if (schema) throw new Error("This is not JSON; text stands in double quotes.");
    return box.value;
  }
}

function deadline({ deadline_at: at, on_timeout: then }) {
  const consequence = AT_DEADLINE[then];
  if (!at || !consequence) return el("p", { class: "hint" }, "It waits until somebody answers.");
  return el("p", { class: "hint" }, `If nobody answers, ${consequence} `, ticking(at, "in"), ".");
}
