"""That every page and state of it fits and can be used by everybody: wide and narrow, light and dark.

The pictures lie in `shots/` beside this, for people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.console.axe import find_serious
from tests.console.watching import sign_in, wait_link, wait_seq, watch
from tests.support.browser import Page
from tests.support.native import get_run
from tests.support.running import FAIL, LOG, RunningGateway
from tests.support.work import claim_one, put_agent, queue_run, write

pytestmark = pytest.mark.anyio

SHOTS = Path(__file__).with_name("shots")
HEIGHT = 900
LONG = "wordwithoutanybreak" * 12
FORM = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "title": "Name", "description": "of the shelf"},
        "count": {"type": "integer", "minimum": 1},
        "kinds": {"type": "array", "items": {"enum": ["book", "map"]}},
        "where": {"type": "object", "properties": {"floor": {"enum": [1, 2]}, "dry": {"type": "boolean"}}},
    },
}
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
    ("run.waiting_for_input", {"prompt": "With what?", "schema": FORM}),
]
STATUSES = ("queued", "delayed", "running", "paused", "cancelling", "completed", "failed", "cancelled")


async def open_everything(page: Page) -> None:
    """Unfold all that can be unfolded."""
    await page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_every_page_fits_and_is_for_everybody(
    page: Page, gateway: RunningGateway, width: int, scheme: str
) -> None:
    """Nothing sticks out sideways, however long a word a producer wrote; axe-core finds nothing serious, with
    dialogs open and all unfolded, too; and the scheme is followed."""
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
    await look_at_runs(page, shots, width)
    await look_at_lists(page, gateway, shots, width)
    await watch(page, gateway, run)
    await wait_seq(page, last)
    await look_at_run(page, shots, width)
    failed = await gateway.run_in("failed")
    await gateway.client.post(f"/v1/runs/{failed['id']}/purge", json={"through_seq": 2})
    await page.open(f"{gateway.url}/console/#run={failed['id']}")
    await wait_link(page, "ended")
    await wait_seq(page, failed["head_seq"])
    await look(page, shots / "failed.png", width)
    await page.open(f"{gateway.url}/console/#run=01JZZZZZZZZZZZZZZZZZZZZZZZ")
    await page.wait_text("There is no run")
    await look(page, shots / "missing.png", width)
    paper = await page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(paper) > 384) is (scheme == "light")


async def look_at_runs(page: Page, shots: Path, width: int) -> None:
    """Take pictures of the list of runs: as it is, with filters, and with many picked."""
    await page.wait(f"document.querySelectorAll('#runs li').length === {len(STATUSES) + 1}")
    await page.click("#pick-all")
    await look(page, shots / "list.png", width)
    await page.click(".filters summary")
    await look(page, shots / "filters.png", width)
    await page.click("[data-bulk=cancel]")
    await page.wait("document.querySelector('dialog')")
    await look(page, shots / "bulk.png", width)
    await page.click("dialog [data-close]")


async def look_at_run(page: Page, shots: Path, width: int) -> None:
    """Take pictures of a run's page: as it opens, with all unfolded, and asking whether it is meant."""
    await page.wait("document.querySelectorAll('.question').length === 4")
    await look(page, shots / "run.png", width)
    await open_everything(page)
    await page.click(".timeline .row:first-child")
    await page.click(".raw .row:last-child")
    await page.wait("document.querySelectorAll('.detail').length === 2")
    await page.resize(width, 4000 if width == 360 else 2600)
    await look(page, shots / "run-unfolded.png", width)
    await page.click("[data-verb=cancel]")
    await page.wait("document.querySelector('dialog')")
    await look(page, shots / "confirm.png", width)
    await page.click("dialog [data-close]")


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
    """Take a picture, and refuse a page that is wider than its window or closed to somebody."""
    await page.screenshot(picture)
    # Where axe-core has to scroll, it takes what the bar at the top then covers for too small.
    await page.resize(width, 4000)
    assert await find_serious(page) == [], picture.name
    assert await page.evaluate("document.documentElement.scrollWidth") <= width, picture.name
    await page.resize(width, HEIGHT)
