"""The content security policy of every page: it stops what is injected, and is never in the pages' own way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.responses import Response

from gateway.app import DIALECTS
from tests.console.watching import sign_in, wait_link, wait_seq, watch
from tests.support.browser import Page
from tests.support.receiver import Received, Receiver, run_receiver
from tests.support.running import COMPLETE, LOG, RunningGateway
from tests.support.work import put_agent, queue_run

pytestmark = pytest.mark.anyio

FORM = {"type": "object", "properties": {"name": {"type": "string"}, "kind": {"enum": ["book", "map"]}}}
BUSY: list[tuple[str, Any]] = [
    ("step.started", {"step_id": "s1", "name": "survey"}),
    ("tool.call", {"call_id": "c1", "name": "list", "input": {"folder": "docs"}}),
    ("tool.result", {"call_id": "c1", "output": ["a"], "status": "ok", "duration_ms": 12}),
    ("step.completed", {"step_id": "s1", "duration_ms": 830}),
    ("message.delta", {"content": "It stands there."}),
    ("output.set", {"key": "k", "value": 1}),
    ("checkpoint.created", {"source": "s", "state": {}}),
    ("run.waiting_for_input", {"prompt": "Publish it?", "schema": {"type": "boolean"}}),
    ("run.waiting_for_input", {"prompt": "With what?", "schema": FORM}),
]
LISTS = ("", "page=dlq", "page=questions", "page=queues", "page=agents", "status=failed")
UNFOLD = "document.querySelectorAll('details').forEach((details) => { details.open = true; })"


def own_violations(page: Page) -> Sequence[str]:
    """Return what the policy of a page was broken by, as the page and as the browser's log tell it."""
    return [*page.violations, *(error for error in page.errors if "Security Policy" in error or "Trusted" in error)]


async def test_no_page_of_the_console_breaks_its_policy(page: Page, gateway: RunningGateway) -> None:
    """Signed out, every list, a run that is busy, unfolded, steered, answered and ended, and one that is not there."""
    await page.watch_policy()
    await put_agent(gateway, "surveyor", queue="mail")
    await queue_run(gateway, "mail", agent_id="surveyor")
    run = await gateway.create_run(title="busy")
    last = (await gateway.append(run["id"], LOG, *BUSY)).json()["last_seq"]
    await page.open(f"{gateway.url}/")
    await page.wait_text("Sign in")
    await sign_in(page, gateway.url, gateway.key)
    for address in LISTS:
        await page.open(f"{gateway.url}/console/#{address}")
        await page.wait(f"location.hash.slice(1) === {json.dumps(address)} && document.querySelector('main h1')")
        await wait_link(page, "live", of="#feed-state")
        await page.evaluate(UNFOLD)
    await watch(page, gateway, run)
    await wait_seq(page, last)
    await page.evaluate(UNFOLD)
    await page.click(".timeline .row:first-child")
    await page.click("[data-verb=cancel]")
    await page.wait("document.querySelector('dialog')")
    await page.click("dialog [data-close]")
    await gateway.client.post(f"/v1/runs/{run['id']}/files", params={"name": "a.txt"}, content=b"a")
    await gateway.append(run["id"], COMPLETE)
    await wait_link(page, "ended")
    await page.open(f"{gateway.url}/console/#run=01JZZZZZZZZZZZZZZZZZZZZZZZ")
    await page.wait_text("There is no run")
    assert own_violations(page) == []


@pytest.mark.parametrize("place", ["", *(f"/compat/{name}" for name in DIALECTS)])
async def test_no_reference_page_breaks_its_policy(page: Page, gateway: RunningGateway, place: str) -> None:
    """Each is drawn whole, under the same policy."""
    await page.watch_policy()
    await page.open(f"{gateway.url}{place}/docs")
    await page.wait("document.querySelectorAll('section').length > 5")
    await page.evaluate(UNFOLD)
    assert own_violations(page) == []


def inject(served: Response, elsewhere: Receiver, receiver: Receiver) -> None:
    """Have a receiver serve a page with what somebody has put into it, under the headers that it came with."""
    foreign = f"http://127.0.0.1:{elsewhere.port}"
    put = f"""<script>window.ranInline = true</script>
      <script src="{foreign}/script.js"></script>
      <link rel="stylesheet" href="{foreign}/style.css">
      <style>body {{ color: red }}</style>
      <img src="{foreign}/picture.png" onerror="window.ranHandler = true" alt="">
      <iframe src="{foreign}/frame.html"></iframe>
      <object data="{foreign}/object.html"></object>
      <base href="{foreign}/">
      <form id="sent" action="{foreign}/form" method="post"><button></button></form>
      <a id="link" href="javascript:window.ranLink = true">link</a>"""
    body = bytes(served.body).replace(b"</body>", put.encode() + b"</body>")
    headers = {name: served.headers[name] for name in ("content-security-policy", "content-type")}

    def answer(_number: int, got: Received) -> Response:
        return Response(body, headers=headers) if got.path == "/" else Response(status_code=404)

    receiver.answer = answer


@pytest.mark.parametrize("path", ["/console/", "/docs"])
async def test_what_is_injected_into_a_page_does_nothing(page: Page, gateway: RunningGateway, path: str) -> None:
    """No script, handler or address that is a script; nothing is asked of another host, or sent there."""
    await page.watch_policy()
    served = await gateway.client.get(path)
    async with run_receiver() as elsewhere, run_receiver() as receiver:
        inject(Response(served.content, headers=dict(served.headers)), elsewhere, receiver)
        await page.open(f"http://127.0.0.1:{receiver.port}/")
        await page.wait("document.querySelector('#link')")
        await page.evaluate("document.querySelector('#link').click(); document.querySelector('#sent').submit()")
        foreign = f"http://127.0.0.1:{elsewhere.port}"
        tries = {
            "fetch": f"fetch('{foreign}/fetched')",
            "socket": f"new Promise((_, fail) => (new WebSocket('{foreign.replace('http', 'ws')}').onerror = fail))",
            "eval": "eval('window.ranEval = true')",
            "markup": "document.body.insertAdjacentHTML('beforeend', '<b>bold</b>')",
            "policy": "trustedTypes.createPolicy('default', {createHTML: (text) => text})",
        }
        for name, attempt in tries.items():
            # Evaluated by a timer: what the developer's tools evaluate is under no policy.
            outcome = f"(async () => {attempt})().then(() => 'done', () => 'refused')"
            told = await page.evaluate(
                "new Promise((resolve) => setTimeout(() => resolve(OUTCOME)))".replace("OUTCOME", outcome)
            )
            assert told == "refused", name
        await page.wait("document.readyState === 'complete'")
        named = ["ranInline", "ranHandler", "ranLink", "ranEval"]
        assert await page.evaluate(f"{json.dumps(named)}.filter((name) => name in window)") == []
        assert await page.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
        assert elsewhere.received == []
        expected = {
            "script-src-elem inline",
            f"script-src-elem {foreign}/script.js",
            f"style-src-elem {foreign}/style.css",
            "style-src-elem inline",
            f"img-src {foreign}/picture.png",
            f"frame-src {foreign}",
            f"object-src {foreign}",
            f"base-uri {foreign}/",
            f"form-action {foreign}/form",
            f"connect-src {foreign}/fetched",
            "script-src-attr inline",
            f"connect-src ws://127.0.0.1:{elsewhere.port}/",
            "trusted-types trusted-types-policy",
            "require-trusted-types-for trusted-types-sink",
        }
        assert expected - set(page.violations) == set()
