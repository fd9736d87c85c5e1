// Which page the address asks for: #key=gwk_… signs in, #run=ID shows a run, #page=NAME a list.

import { feedLink, followFeed, hearFeed } from "./feed.js";
import { AgentsPage, InboxPage, QueuesPage } from "./lists.js";
import { RunPage } from "./run.js";
import { RunsPage } from "./runs.js";
import { call, key, signedOutBecause, signIn, signOut } from "./session.js";
import { ErrorText, html, render, signal, useEffect, useLoaded, useState } from "./ui.js";

const COUNTED = 20;
const COUNT_MS = 1500;

const PAGES = [["", "Runs"], ["dlq", "Dead letters"], ["questions", "Questions"], ["queues", "Queues"], ["agents", "Agents"]];
const address = signal(new URLSearchParams());

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const given = asked.get("key");
  if (given) {
    // Out of sight and out of the history before anything else.
    asked.delete("key");
    history.replaceState(null, "", asked.size ? `#${asked}` : location.pathname);
    signIn(given);
  }
  address.value = asked;
}

function Page() {
  const asked = address.value;
  const run = asked.get("run");
  if (run) return html`<${RunPage} key=${run} id=${run} />`;
  const page = asked.get("page") ?? "";
  if (page === "queues") return html`<${QueuesPage} />`;
  if (page === "agents") return html`<${AgentsPage} />`;
  if (page === "questions") return html`<${InboxPage} />`;
  return html`<${RunsPage} key=${page} asked=${asked} dead=${page === "dlq"} />`;
}

function Desk() {
  useEffect(() => followFeed((reason) => signOut(reason)), []);
  const asked = address.value;
  const page = asked.get("page") ?? "";
  useEffect(() => {
    if (!asked.has("run")) document.title = PAGES.find(([name]) => name === page)?.[1] ?? "Runs";
    document.getElementById("page").focus({ preventScroll: true });
    scrollTo(0, 0);
    document.querySelector(".bar nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [asked.get("run"), asked.get("cursor"), page]);
  const link = (name) => (name ? `#page=${name}` : "#");
  const isHere = (name) => !asked.has("run") && name === page;
  return html`
    <a class="skip" href="#page" onClick=${(click) => { click.preventDefault(); document.getElementById("page").focus(); }}>
      Skip to the page
    </a>
    <header class="bar">
      <a class="brand" href="#"><img src="icon.svg" alt="" width="20" height="20" /> <span>Gateway</span></a>
      <nav aria-label="Pages">
        ${PAGES.map(([name, title]) => html`<a href=${link(name)} aria-current=${isHere(name) ? "page" : null}>${title}${name === "questions" && html`<${Waiting} />`}</a>`)}
      </nav>
      <span id="feed-state" class="link" role="status" data-state=${feedLink.value}>${feedLink.value}</span>
      <button id="sign-out" class="plain" type="button" onClick=${() => { signOut(); history.replaceState(null, "", location.pathname); readAddress(); }}>
        Sign out
      </button>
    </header>
    <main id="page" tabindex="-1"><${Page} /></main>
  `;
}

/** How many questions wait, as far as they are worth counting. */
function Waiting() {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let timer = null;
    const forget = hearFeed(() => { timer ??= setTimeout(() => { timer = null; setTurn((last) => last + 1); }, COUNT_MS); });
    return () => { forget(); clearTimeout(timer); };
  }, []);
  const { value } = useLoaded(() => call("GET", `requests?status=open&limit=${COUNTED}`), [turn]);
  if (!value?.data.length) return null;
  const many = `${value.data.length}${value.has_more ? "+" : ""}`;
  return html` <span class="badge" id="waiting"><span aria-hidden="true">${many}</span><span class="unseen">, ${many} open</span></span>`;
}

function SignIn() {
  const [error, setError] = useState(signedOutBecause.value);
  useEffect(() => { document.title = "Sign in"; document.getElementById("key").focus(); }, []);
  async function submit(event) {
    event.preventDefault();
    const given = document.getElementById("key").value.trim();
    const headers = { authorization: `Bearer ${given}` };
    const answer = await fetch(new URL("../v1/runs?limit=1", import.meta.url), { headers }).catch(() => null);
    if (answer?.ok) return signIn(given);
    setError(answer ? (await answer.json().catch(() => ({}))).detail : "The gateway cannot be reached. Is it running?");
  }
  return html`<main><form class="sign-in" onSubmit=${submit}>
    <h1>Sign in</h1>
    <label for="key">API key</label>
    <div class="field">
      <input id="key" type="password" autocomplete="off" spellcheck=${false} required pattern="\\s*[!-~]+\\s*"
        title="An API key: no spaces, no accents" placeholder="gwk_…" />
      <button type="submit" class="main">Sign in</button>
    </div>
    <${ErrorText} error=${error} />
    <p class="hint"><code>gateway serve</code> prints a development key. It stays in this tab and ends with it.</p>
  </form></main>`;
}

const App = () => (key.value ? html`<${Desk} key=${key.value} />` : html`<${SignIn} />`);

addEventListener("hashchange", readAddress);
readAddress();
render(html`<${App} />`, document.getElementById("app"));
