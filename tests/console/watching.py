"""The console as a person uses it: signed in, looking at a run."""

from __future__ import annotations

import json
from typing import Any

from tests.support.browser import Page
from tests.support.running import RunningGateway

STATUS = "[data-part=status]"
LINK = "[data-part=link]"
# Scrolls through the event log from its beginning; the seq of each row's event by the row's place in the list.
SEQS = """(async () => {
  const box = document.querySelector(".raw .virtual");
  const seen = new Map();
  let rows;
  const edges = (node) => node.getBoundingClientRect();
  // Rows are drawn a while after the list was scrolled: until then those of before stand there.
  const isDrawn = () => {
    rows = [...box.querySelectorAll(".row")];
    const bottom = Math.min(edges(box).bottom, edges(box.firstElementChild).bottom);
    return Math.min(...rows.map((row) => edges(row).top)) <= edges(box).top + 2 &&
      Math.max(...rows.map((row) => edges(row).bottom)) >= bottom - 2 &&
      rows.every((row) => row.querySelector("[data-here]"));
  };
  box.scrollTop = 0;
  for (;;) {
    do await new Promise((resolve) => setTimeout(resolve, 10)); while (!isDrawn());
    for (const row of rows) seen.set(Number(row.ariaPosInSet), Number(row.querySelector("[data-here]").dataset.seq));
    if (box.scrollTop + box.clientHeight >= box.scrollHeight - 1) break;
    box.scrollTop += box.clientHeight;
  }
  return [...seen].sort(([a], [b]) => a - b).map(([, seq]) => seq);
})()"""


async def sign_in(page: Page, url: str, key: str, *, run_id: str | None = None) -> None:
    """Open the console by the address that `gateway serve` prints, or at a run."""
    await page.open(f"{url}/console/#key={key}{f'&run={run_id}' if run_id else ''}")
    await wait_link(page, "live", of="#feed-state")


async def watch(page: Page, gateway: RunningGateway, run: dict[str, Any], *, link: str = "live") -> None:
    """Open a run's page and wait until its connection says `link`."""
    await sign_in(page, gateway.url, gateway.key, run_id=run["id"])
    await wait_link(page, link)


async def wait_link(page: Page, word: str, *, of: str = LINK) -> None:
    """Wait until the page says so of its connection."""
    await page.wait(f"document.querySelector({json.dumps(of)}).dataset.state === {json.dumps(word)}")


async def wait_status(page: Page, status: str) -> None:
    """Wait until the run's page shows this status."""
    await page.wait(f"document.querySelector({json.dumps(STATUS)}).dataset.status === {json.dumps(status)}")


async def wait_seq(page: Page, seq: int) -> None:
    """Wait until the run's page shows an event."""
    await page.wait(f"document.querySelector('.raw [data-here][data-seq=\"{seq}\"]')")


async def shown_seqs(page: Page) -> list[int]:
    """Return the seqs of the event log as it is shown, in its order."""
    seqs: list[int] = await page.evaluate(SEQS)
    return seqs


async def act(page: Page, verb: str) -> None:
    """Press an action's button, and confirm once what will happen has been said."""
    await page.click(f"[data-verb={verb}]")
    await page.wait("document.querySelector('dialog [data-part=foretold]').innerText.length > 20")
    await page.click("dialog [data-confirm]")
    await page.wait("document.querySelector('dialog') === null")
