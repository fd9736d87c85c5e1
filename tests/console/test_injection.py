"""Whatever producers write is only ever text: markup in every field that they fill, on every page that shows it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.console.watching import sign_in, wait_link, watch
from tests.support.browser import Page
from tests.support.native import accepted
from tests.support.running import LOG, RunningGateway
from tests.support.work import claim, put_agent, queue_run, write

pytestmark = pytest.mark.anyio

PAYLOAD = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'`${alert(3)}]]>"
LINK = "javascript:alert(4)"
SCHEMA = {
    "type": "object",
    "title": PAYLOAD,
    "description": PAYLOAD,
    "required": [PAYLOAD],
    "properties": {
        PAYLOAD: {"type": "string", "title": PAYLOAD, "description": PAYLOAD, "default": PAYLOAD},
        "one": {"enum": [PAYLOAD, LINK], "default": PAYLOAD},
        "many": {"type": "array", "items": {"enum": [PAYLOAD]}, "description": PAYLOAD},
        "within": {"type": "object", "properties": {PAYLOAD: {"type": "boolean", "description": PAYLOAD}}},
        "free": {"default": {PAYLOAD: PAYLOAD}, "description": PAYLOAD},
    },
}
EVIL: list[tuple[str, Any]] = [
    ("log", {"level": PAYLOAD[:60], "message": PAYLOAD, "data": {PAYLOAD: PAYLOAD}}),
    ("message.delta", {"content": PAYLOAD, "message_id": PAYLOAD, "role": "<b>user</b>"}),
    ("step.started", {"step_id": PAYLOAD, "name": PAYLOAD, "input": {PAYLOAD: PAYLOAD}}),
    ("file.created", {"file_id": PAYLOAD, "name": PAYLOAD, "size_bytes": 1, "content_type": PAYLOAD}),
    ("file.created", {"file_id": LINK, "name": LINK, "size_bytes": 1, "content_type": "text/html"}),
    ("usage.recorded", {"provider": PAYLOAD, "model": PAYLOAD, "prompt_tokens": 1, "completion_tokens": 1}),
    ("tool.call", {"call_id": PAYLOAD, "name": PAYLOAD, "input": PAYLOAD}),
    ("tool.progress", {"call_id": PAYLOAD, "progress": PAYLOAD}),
    ("tool.result", {"call_id": PAYLOAD, "output": PAYLOAD, "status": PAYLOAD[:60], "duration_ms": 1}),
    ("step.failed", {"step_id": PAYLOAD, "error": {"code": PAYLOAD, "message": PAYLOAD}}),
    ("output.set", {"key": PAYLOAD, "value": PAYLOAD, "schema": {"title": PAYLOAD}}),
    ("checkpoint.created", {"source": PAYLOAD, "state": PAYLOAD}),
    ("custom.x", PAYLOAD),
    ("run.waiting_for_input", {"prompt": PAYLOAD, "request_id": PAYLOAD, "schema": {"enum": [PAYLOAD, "constructor"]}}),
    ("run.waiting_for_input", {"prompt": PAYLOAD, "request_id": "form", "schema": SCHEMA}),
]
PLACES = (
    ".run h1",
    ".text p",
    ".timeline",
    ".question button",
    ".question legend",
    ".question .hint",
    "[data-part=files]",
    "[data-part=input]",
    "[data-part=audit]",
    ".raw .virtual",
)
# What markup would have become: elements that the console has none of, handlers, addresses that are scripts.
INJECTED = """[...document.querySelectorAll("*")].filter((node) =>
  node.matches("main :is(img, script, iframe, object, b b), body > script") ||
  [...node.attributes].some(({ name, value }) =>
    name.startsWith("on") || (["href", "src", "action"].includes(name) && /^\\s*javascript:/i.test(value)))
).map((node) => node.outerHTML.slice(0, 200))"""


async def check(page: Page) -> None:
    """Refuse anything that was taken for markup or run."""
    assert await page.evaluate(INJECTED) == []
    assert page.dialogs == []
    assert page.errors == []


async def fail_evilly(gateway: RunningGateway, queue: str) -> None:
    """Make a dead letter with a claimer, an actor, an error and an agent that are all markup."""
    await put_agent(gateway, "evil", title=PAYLOAD, queue=queue, dead_letter=True)
    await queue_run(gateway, queue, agent_id="evil", title=PAYLOAD, triggered_by=PAYLOAD)
    (claimed,) = await claim(gateway, queue, wait_s=10, worker=PAYLOAD)
    error = {"code": PAYLOAD, "message": PAYLOAD, "details": {PAYLOAD: PAYLOAD}}
    accepted(await write(gateway, claimed, LOG, ("run.failed", {"error": error})))


async def test_what_a_run_says_is_only_ever_text(page: Page, gateway: RunningGateway) -> None:
    """Titles, tags, metadata, names, inputs, messages, lines, outputs, files, prompts, schemas, errors, actors."""
    principal = {"id": "evil", "name": PAYLOAD, "email": PAYLOAD}
    made = await gateway.client.post(
        "/v1/keys", json={"name": PAYLOAD, "scopes": ["runs:write"], "principal": principal}
    )
    key = accepted(made, 201)["key"]
    body = {"agent_id": "evil", "mode": "direct", "title": PAYLOAD, "input": {PAYLOAD: PAYLOAD}}
    about = {"tags": {"evil": PAYLOAD}, "metadata": {"evil": PAYLOAD}, "triggered_by": PAYLOAD}
    async with httpx.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {key}"}, timeout=30) as evil:
        run = accepted(await evil.post("/v1/runs", json={**body, **about}), 201)
    await watch(page, gateway, run)
    accepted(await gateway.append(run["id"], *EVIL))
    await page.wait("document.querySelectorAll('.question').length === 2")
    for place in PLACES:
        await page.wait(
            f"[...document.querySelectorAll({json.dumps(place)})].some((node) => "
            f"node.innerText.includes({json.dumps(PAYLOAD)}))"
        )
    await page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    for row in ("1", "2"):
        await page.click(f".timeline .row:nth-child({row})")
        await page.wait_text(PAYLOAD, within="[data-part=entry]")
    await page.click(".raw .row:last-child")
    await page.wait_text("waiting_for_input", within="[data-part=event]")
    await check(page)
    error = {"code": PAYLOAD, "message": PAYLOAD, "details": {PAYLOAD: PAYLOAD}}
    accepted(await gateway.append(run["id"], LOG, ("run.failed", {"error": error})))
    await page.wait_text(PAYLOAD, within="[data-part=outcome]")
    change = {"reason": PAYLOAD, "triggered_by": PAYLOAD}
    accepted(await gateway.client.post(f"/v1/runs/{run['id']}/restart", json=change))
    accepted(await gateway.append(run["id"], LOG, attempt=2))
    await page.wait_text(PAYLOAD, within="del.message")
    await check(page)


async def test_what_lists_show_is_only_ever_text(page: Page, gateway: RunningGateway) -> None:
    """Runs, dead letters, questions, queues, workers, agents; and addresses that somebody else has written."""
    await fail_evilly(gateway, "graves")
    await queue_run(gateway, "graves", title=PAYLOAD)
    await claim(gateway, "graves", wait_s=10, worker=PAYLOAD)
    asks = await gateway.create_run(title=PAYLOAD, tags={"evil": PAYLOAD})
    accepted(await gateway.append(asks["id"], LOG, EVIL[-2], EVIL[-1]))
    await sign_in(page, gateway.url, gateway.key)
    for address, within in (
        ("", "#runs"),
        ("page=dlq", "#runs"),
        ("page=questions", ".questions"),
        ("page=queues", "main"),
        ("page=agents", "main"),
        (f"tag={quote('evil:' + PAYLOAD)}", "#runs"),
    ):
        await page.open(f"{gateway.url}/console/#{address}")
        await page.wait(f"location.hash === {json.dumps('#' + address if address else '')}")
        await page.wait_text(PAYLOAD, within=within)
        await check(page)
    for address in (f"page={quote(PAYLOAD)}", f"status={quote(PAYLOAD)}", f"metadata={quote('a:' + PAYLOAD)}"):
        await page.open(f"{gateway.url}/console/#{address}")
        await page.wait(f"location.hash === {json.dumps('#' + address)} && document.querySelector('main h1')")
        await wait_link(page, "live", of="#feed-state")
        assert await page.evaluate(INJECTED) == []
    assert page.dialogs == []
