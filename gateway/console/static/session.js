// Who is signed in: the key of this tab, kept in its session storage and nowhere else.

import { connect } from "../client.js";
import { signal } from "./ui.js";

const STORED = "gateway.key";

export const key = signal(sessionStorage.getItem(STORED));
export const signedOutBecause = signal(null);
let client = null;
let ticket = null;

export function signIn(text) {
  sessionStorage.setItem(STORED, text);
  signedOutBecause.value = null;
  client = ticket = null;
  key.value = text;
}

export function signOut(reason = null) {
  sessionStorage.removeItem(STORED);
  signedOutBecause.value = reason;
  client = ticket = null;
  key.value = null;
}

/** The client of this key; one ticket opens its streams, and is renewed when one says that it is stale. */
function reach() {
  client ??= connect({ key: key.value, ticket: renew, identity: identify(key.value) });
  return client;
}

async function renew({ stale }) {
  if (!ticket || ticket === stale) ticket = (await call("POST", "tickets", { tenant: true, scopes: ["runs:read"] })).ticket;
  return ticket;
}

const identify = (text) => [...text].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) >>> 0, 7);

/** Call the API; whoever's key works no more is signed out. */
export async function call(method, path, body) {
  try {
    return await reach().call(method, path, body);
  } catch (error) {
    if (error.status === 401 && key.value) signOut(error.message);
    throw error;
  }
}

/** Post, and hand on each line of the answer as it comes. */
export async function* lines(path, body) {
  const headers = { authorization: `Bearer ${key.value}`, "content-type": "application/json", accept: "application/x-ndjson" };
  const url = new URL(`../v1/${path}`, import.meta.url);
  const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `The gateway answered ${answer.status}.`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let piece; !(piece = await reader.read()).done; ) {
    const whole = (rest + piece.value).split("\n");
    rest = whole.pop();
    for (const line of whole) if (line.trim()) yield JSON.parse(line);
  }
}

export const runPath = (id, verb = "") => `runs/${encodeURIComponent(id)}${verb && `/${verb}`}`;
export const openRun = (id, options) => reach().openRun(id, options);
export const openFeed = (options) => reach().feed(options);
