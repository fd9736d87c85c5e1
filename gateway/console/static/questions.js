// One open question as a form that fits its schema.

import { call, runPath } from "./session.js";
import { ErrorText, html, json, Ticking, useState } from "./ui.js";

const AT_DEADLINE = { fail: "the run fails", cancel: "the run is cancelled", default: "this counts:" };
const DEEPEST = 4;

export function QuestionCard({ runId, asked }) {
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [asJson, setAsJson] = useState(false);
  const schema = asked.schema;
  const hasFields = isForm(schema);
  async function answer(content) {
    setError(null);
    setBusy(true);
    try {
      await call("POST", runPath(runId, "input"), { request_id: asked.request_id, content });
      // The form is about to go; who came here by keyboard stays on the page.
      document.getElementById("page")?.focus({ preventScroll: true });
    } catch (refusal) {
      setError(refusal.message);
      setBusy(false);
    }
  }
  function submit(event) {
    event.preventDefault();
    try {
      answer(hasFields && !asJson ? readField(event.target, schema, "answer") : readText(schema, event.target.elements.answer.value));
    } catch (problem) {
      setError(problem.message);
    }
  }
  const values = choices(schema);
  return html`<article class="question">
    <h2>${asked.prompt}</h2>
    ${values
      ? html`<div class="field" inert=${busy} role="group" aria-label=${asked.prompt}>
          ${values.map((value) => html`<button type="button" onClick=${() => answer(value)}>${label(value)}</button>`)}
        </div>`
      : html`<form class=${hasFields && !asJson ? "fields" : "field"} inert=${busy} onSubmit=${submit} novalidate=${asJson}>
          ${hasFields && !asJson ? html`<${Field} schema=${schema} name="answer" depth=${0} />` : html`<${Box} asked=${asked} />`}
          <button class="main">Send</button>
          ${hasFields && html`<button type="button" class="plain" onClick=${() => setAsJson(!asJson)}>${asJson ? "As a form" : "As JSON"}</button>`}
        </form>`}
    <${Deadline} ...${asked} />
    <${ErrorText} error=${error} />
  </article>`;
}

/** The values to choose from; undefined where the answer is to be written. */
function choices(schema) {
  if (Array.isArray(schema?.enum)) return schema.enum;
  return schema?.type === "boolean" ? [true, false] : undefined;
}

function label(value) {
  if (typeof value === "boolean") return value ? "Yes" : "No";
  return json(value, 200);
}

const isForm = (schema) => schema?.type === "object" && Object.keys(schema.properties ?? {}).length > 0;

function Box({ asked: { schema, prompt } }) {
  const hint = schema ? (schema.type === "string" ? "Your answer" : `JSON: ${schema.type ?? "any"}`) : "Text or JSON";
  const about = { name: "answer", "aria-label": prompt, placeholder: hint, autocomplete: "off" };
  return !schema || schema.type === "string" ? html`<input ...${about} />` : html`<textarea ...${about} rows="3" required></textarea>`;
}

function readText(schema, text) {
  if (schema?.type === "string") return text;
  try {
    return JSON.parse(text);
  } catch {
    if (schema) throw new Error("This is not JSON; text stands in double quotes.");
    return text;
  }
}

/** A field of an object: by its schema, as JSON where no control fits. */
function Field({ schema, name, title, required, depth }) {
  const kind = kindOf(schema, depth);
  const said = schema?.title ?? title;
  const note = schema?.description && html`<small class="hint" id=${`${name}-note`}>${schema.description}</small>`;
  if (kind === "object") {
    return html`<fieldset>${said && html`<legend>${said}</legend>`}${note}
      ${Object.entries(schema.properties).map(([key, inner]) => html`<${Field} schema=${inner} name=${`${name}.${key}`} title=${key}
        required=${schema.required?.includes(key)} depth=${depth + 1} />`)}
    </fieldset>`;
  }
  const about = { name, required, "aria-describedby": note ? `${name}-note` : null };
  if (kind === "many") {
    return html`<fieldset><legend>${said}</legend>${note}
      ${schema.items.enum.map((value, index) => html`<label class="check">
        <input type="checkbox" name=${name} value=${index} checked=${schema.default?.includes(value)} /> ${label(value)}</label>`)}
    </fieldset>`;
  }
  if (kind === "flag") return html`<label class="check"><input type="checkbox" name=${name} checked=${schema.default === true} /> ${said}${note}</label>`;
  return html`<label>${said}${required ? "" : html` <small class="hint">optional</small>`}${control(kind, schema, about)}${note}</label>`;
}

function control(kind, schema, about) {
  const { minimum: min, maximum: max, minLength: minlength, maxLength: maxlength, default: given } = schema ?? {};
  if (kind === "one") {
    const at = schema.enum.findIndex((value) => JSON.stringify(value) === JSON.stringify(given));
    return html`<select ...${about}>${!about.required && html`<option value="">–</option>`}
      ${schema.enum.map((value, index) => html`<option value=${index} selected=${index === at}>${label(value)}</option>`)}</select>`;
  }
  if (kind === "number") return html`<input ...${about} type="number" step=${schema.type === "integer" ? 1 : "any"} min=${min} max=${max} defaultValue=${given ?? ""} />`;
  if (kind === "text" && (maxlength ?? 0) > 200) return html`<textarea ...${about} rows="3" maxlength=${maxlength} defaultValue=${given ?? ""}></textarea>`;
  if (kind === "text") return html`<input ...${about} type=${schema.format === "date" ? "date" : "text"} minlength=${minlength} maxlength=${maxlength} defaultValue=${given ?? ""} />`;
  return html`<textarea ...${about} rows="2" placeholder="JSON" defaultValue=${given === undefined ? "" : JSON.stringify(given)}></textarea>`;
}

function kindOf(schema, depth) {
  if (Array.isArray(schema?.enum)) return "one";
  if (isForm(schema) && depth < DEEPEST) return "object";
  if (schema?.type === "array" && Array.isArray(schema.items?.enum)) return "many";
  return { boolean: "flag", number: "number", integer: "number", string: "text" }[schema?.type] ?? "json";
}

/** Return what a field says; undefined where it was left out. */
function readField(form, schema, name, depth = 0) {
  const kind = kindOf(schema, depth);
  if (kind === "object") {
    const entries = Object.entries(schema.properties).map(([key, inner]) => [key, readField(form, inner, `${name}.${key}`, depth + 1)]);
    return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
  }
  const boxes = [...form.elements].filter((element) => element.name === name);
  if (kind === "many") return boxes.filter((box) => box.checked).map((box) => schema.items.enum[box.value]);
  const [box] = boxes;
  if (kind === "flag") return box.checked;
  if (box.value === "" && !(kind === "text" && box.required)) return undefined;
  if (kind === "one") return schema.enum[box.value];
  if (kind === "number") return Number(box.value);
  return kind === "text" ? box.value : readText({}, box.value);
}

function Deadline({ deadline_at: at, on_timeout: then, default: given }) {
  const consequence = AT_DEADLINE[then];
  if (!at || !consequence) return html`<p class="hint">It waits until somebody answers.</p>`;
  return html`<p class="hint">If nobody answers <${Ticking} at=${at} word="within" />, ${consequence}${then === "default" ? html` <b>${label(given)}</b>` : ""}.</p>`;
}
