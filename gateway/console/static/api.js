// Calls to the gateway with the key of this tab.

const STORED = "gateway.key";
const API = new URL("../v1/", import.meta.url);

export const readKey = () => sessionStorage.getItem(STORED);
export const keepKey = (key) => sessionStorage.setItem(STORED, key);
export const dropKey = () => sessionStorage.removeItem(STORED);

/** The gateway said no; `status` is 0 when nobody answered at all. */
export class Refused extends Error {
  constructor(status, problem = {}) {
    super(problem.detail ?? problem.title ?? `The gateway answered ${status}.`);
    this.status = status;
  }

  /** Whether asking again later may help. */
  get passing() {
    return [0, 429, 502, 503, 504].includes(this.status);
  }
}

export async function call(method, path, body) {
  const headers = { authorization: `Bearer ${readKey()}` };
  if (method === "POST") headers["idempotency-key"] = randomWord();
  if (body !== undefined) headers["content-type"] = "application/json";
  const request = { method, headers, body: JSON.stringify(body), cache: "no-store" };
  let response;
  try {
    response = await fetch(new URL(path, API), request);
  } catch {
    throw new Refused(0, { detail: "The gateway cannot be reached." });
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

export const runPath = (id, verb = "") => `runs/${encodeURIComponent(id)}${verb && `/${verb}`}`;

export function streamUrl(path, ticket, after) {
  const url = new URL(path, API);
  url.searchParams.set("ticket", ticket);
  if (after) url.searchParams.set("after", after);
  return url;
}

function randomWord() {
  // Not randomUUID: that exists on https and localhost only.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
