"""That every page fits: wide and narrow, light and dark. The pictures lie in `shots/` beside this, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.console.watching import sign_in, wait_link, wait_seq, watch
from tests.support.browser import Page
from tests.support.native import get_run
from tests.support.running import FAIL, LOG, RunningGateway
from tests.support.work import claim_one, put_agent, queue_run, write

pytestmark = pytest.mark.anyio

SHOTS = Path(__file__).with_name("shots")
LONG = "wordwithoutanybreak" * 12
BUSY: list[tuple[str, Any]] = [
    ("step.started", {"step_id": "s1", "name": "survey the shelves"}),
    ("tool.call", {"call_id": "c1", "name": "list_files", "input": {"folder": "docs"}}),
    ("tool.result", {"call_id": "c1", "output": {"files": ["a.md", LONG]}, "status": "ok", "duration_ms": 12}),
    ("step.completed", {"step_id": "s1", "duration_ms": 830}),
    ("step.started", {"step_id": "s2", "name": f"read {LONG}"}),
    ("tool.call", {"call_id": "c2", "name": "read_file", "input": {"path": "a.md"}}),
    ("tool.result", {"call_id": "c2", "output": "no such file", "status": "error", "duration_ms": 1}),
    ("message.delta", {"content": f"It stands in three places.\n\nOne of them is {LONG}, the others "}),
    ("log", {"level": "warning", "message": f"skipped {LONG}"}),
    ("log", {"level": "error", "message": "gone"}),
    ("run.waiting_for_input", {"prompt": "Publish it?", "schema": {"type": "boolean"}, "timeout_s": 90}),
    ("run.waiting_for_input", {"prompt": "Where to?", "schema": {"enum": ["here", "there", LONG]}}),
    ("run.waiting_for_input", {"prompt": "Under which name?", "schema": {"type": "string"}}),
    ("run.waiting_for_input", {"prompt": "With what?", "schema": {"type": "object"}}),
]
STATUSES = ("queued", "delayed", "running", "paused", "cancelling", "completed", "failed", "cancelled")


async def open_everything(page: Page) -> None:
    """Unfold all that can be unfolded."""
    await page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_the_pages_fit(page: Page, gateway: RunningGateway, width: int, scheme: str) -> None:
    """Nothing sticks out sideways, however long a word a producer wrote, and the scheme is followed."""
    shots = SHOTS / f"{width}-{scheme}"
    shots.mkdir(parents=True, exist_ok=True)
    for status in STATUSES:
        await gateway.run_in(status)
    run = await gateway.create_run(title=f"Where is the tide spoken of, and {LONG}?", agent_id="demo")
    last = (await gateway.append(run["id"], *BUSY)).json()["last_seq"]
    await page.show_as(width=width, scheme=scheme)
    await page.open(f"{gateway.url}/console/")
    await page.wait_text("Sign in")
    await look(page, shots / "sign-in.png", width)
    await sign_in(page, gateway.url, gateway.key)
    await page.wait(f"document.querySelectorAll('#runs li').length === {len(STATUSES) + 1}")
    await page.click("#pick-all")
    await look(page, shots / "list.png", width)
    await page.click("[data-bulk=cancel]")
    await page.wait("document.querySelector('dialog')")
    await look(page, shots / "bulk.png", width)
    await page.click("dialog [data-close]")
    await look_at_lists(page, gateway, shots, width)
    await watch(page, gateway, run)
    await wait_seq(page, last)
    await page.wait("document.querySelectorAll('.question').length === 4")
    await look(page, shots / "run.png", width)
    await open_everything(page)
    await page.show_as(width=width, height=4000 if width == 360 else 2600, scheme=scheme)
    await look(page, shots / "run-unfolded.png", width)
    await page.show_as(width=width, scheme=scheme)
    await page.click("[data-verb=pause]")
    await page.wait("document.querySelector('dialog')")
    await look(page, shots / "confirm.png", width)
    failed = await gateway.run_in("failed")
    await gateway.client.post(f"/v1/runs/{failed['id']}/purge", json={"through_seq": 2})
    await page.show_as(width=width, scheme=scheme)
    await page.open(f"{gateway.url}/console/#run={failed['id']}")
    await wait_link(page, "ended")
    await look(page, shots / "failed.png", width)
    paper = await page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(paper) > 384) is (scheme == "light")


async def look_at_lists(page: Page, gateway: RunningGateway, shots: Path, width: int) -> None:
    """Take pictures of the lists, with something in each."""
    dead = await queue_run(gateway, "graves", dead_letter=True, title="It would not go")
    await write(gateway, await claim_one(gateway, "graves"), LOG, FAIL)
    assert (await get_run(gateway, dead))["status"] == "dead_letter"
    await queue_run(gateway, "mail", title="Sort the letters")
    await claim_one(gateway, "mail")
    await queue_run(gateway, "mail")
    await put_agent(gateway, "surveyor", queue="mail", title="Surveyor of shelves", retry={"max_attempts": 3})
    for name, words in (
        ("dlq", "It would not go"),
        ("queues", "mail"),
        ("agents", "Surveyor"),
        ("questions", "Where to?"),
    ):
        await page.open(f"{gateway.url}/console/#page={name}")
        await page.wait_text(words, within="main")
        await look(page, shots / f"{name}.png", width)
    await page.open(f"{gateway.url}/console/#agent_id=none&status=failed")
    await page.wait_text("No run fits.")
    await look(page, shots / "empty.png", width)


async def look(page: Page, picture: Path, width: int) -> None:
    """Take a picture, and refuse a page that is wider than its window."""
    await page.screenshot(picture)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width, picture.name
