"""That everybody can use the pages: axe-core finds nothing serious on any of them, in either colour scheme."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.console.test_looks import BUSY
from tests.console.watching import sign_in, wait_seq
from tests.support.browser import Page
from tests.support.running import RunningGateway
from tests.support.work import claim_one, put_agent, queue_run

pytestmark = pytest.mark.anyio

AXE = (Path(__file__).parents[1] / "support" / "vendor" / "axe.min.js").read_text("utf-8")
RULES = "{ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }"
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


async def serious(page: Page) -> list[Any]:
    """Return what axe-core finds that is serious or worse: the rule, and where."""
    await page.evaluate(f"{AXE}; undefined")
    found: list[Any] = await page.evaluate(
        f"axe.run(document, {RULES}).then(({{ violations }}) => violations"
        ".filter(({ impact }) => ['serious', 'critical'].includes(impact))"
        ".map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html.slice(0, 200), failureSummary])]))"
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(page: Page, gateway: RunningGateway, scheme: str) -> None:
    """Sign-in, lists, dialogs and a run with everything on it."""
    await page.show_as(width=1280, scheme=scheme)
    await page.open(f"{gateway.url}/console/")
    await page.wait_text("Sign in")
    assert await serious(page) == []
    for status in ("running", "failed", "completed", "paused", "cancelled", "queued"):
        await gateway.run_in(status)
    run = await gateway.create_run(title="The busy one", input={"a": 1}, tags={"team": "tides"})
    last = (
        await gateway.append(run["id"], *BUSY, ("run.waiting_for_input", {"prompt": "Which shelf?", "schema": FORM}))
    ).json()["last_seq"]
    await put_agent(gateway, "surveyor", queue="mail")
    await queue_run(gateway, "mail")
    await claim_one(gateway, "mail")
    await sign_in(page, gateway.url, gateway.key)
    await page.wait("document.querySelectorAll('#runs li').length === 8")
    await page.click(".filters summary")
    assert await serious(page) == []
    await page.click("#pick-all")
    await page.click("[data-bulk=cancel]")
    assert await serious(page) == []
    await page.click("dialog [data-close]")
    for name, words in (
        ("queues", "mail"),
        ("agents", "surveyor"),
        ("questions", "Which shelf?"),
        ("dlq", "No dead letters"),
    ):
        await page.open(f"{gateway.url}/console/#page={name}")
        await page.wait_text(words, within="main")
        assert await serious(page) == [], name
    await page.open(f"{gateway.url}/console/#run={run['id']}")
    await wait_seq(page, last)
    await page.click(".timeline .row:first-child")
    await page.click(".raw .row:last-child")
    await page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert await serious(page) == []
    await page.click("[data-verb=cancel]")
    assert await serious(page) == []
