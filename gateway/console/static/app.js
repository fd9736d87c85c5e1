// Who is signed in, and which page the address asks for: #key=gwk_… signs in, #run=ID shows a run.

import { call, dropKey, keepKey, readKey } from "./api.js";
import { say } from "./dom.js";
import { RunList } from "./runlist.js";
import { RunPage } from "./runpage.js";

const at = (id) => document.getElementById(id);
const idle = at("page").firstElementChild;

let list = null;
let page = null;
let shown = null;

function route() {
  const address = new URLSearchParams(location.hash.slice(1));
  const [key, run] = [address.get("key"), address.get("run")];
  if (key) {
    // Out of sight and out of the history before anything else.
    history.replaceState(null, "", run ? `#run=${encodeURIComponent(run)}` : location.pathname);
    keepKey(key);
    if (list) return location.reload();
  }
  if (!readKey()) return askForKey();
  enter();
  if (run === shown && page) return;
  open(run);
  if (run) at("page").focus();
}

function enter() {
  for (const id of ["desk", "sign-out"]) at(id).hidden = false;
  at("sign-in").hidden = true;
  list ??= new RunList({ refused, changed });
}

function open(run) {
  page?.close();
  page = run && new RunPage(at("page"), run, refused);
  shown = run;
  list.select(run);
  document.body.dataset.view = run ? "run" : "list";
  if (run) return;
  at("page").replaceChildren(idle);
  document.title = "Runs";
}

/** A run that has ended may begin again: then its page does, too. */
function changed(id, seq) {
  if (id === shown && page?.isBehind(seq)) open(id);
}

function refused(error) {
  page?.close();
  list?.close();
  list = null;
  dropKey();
  askForKey(error.message);
}

function askForKey(reason) {
  for (const id of ["desk", "sign-out", "feed-state"]) at(id).hidden = true;
  at("sign-in").hidden = false;
  say(at("sign-in-error"), reason);
  at("key").focus();
}

at("sign-in").addEventListener("submit", async (submit) => {
  submit.preventDefault();
  try {
    keepKey(at("key").value.trim());
    await call("GET", "runs?limit=1");
    location.reload();
  } catch (error) {
    dropKey();
    say(at("sign-in-error"), error.message);
  }
});

at("sign-out").addEventListener("click", () => {
  dropKey();
  location.reload();
});

addEventListener("hashchange", route);
route();
