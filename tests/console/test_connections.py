"""A live run over networks, gateways and tabs that come and go: what is shown is exactly 1 to n."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.console.watching import shown_seqs, sign_in, wait_link, wait_seq, watch
from tests.support.browser import Page
from tests.support.processes import serving
from tests.support.proxy import Cut, lay_proxy
from tests.support.running import COMPLETE, LOG, RunningGateway, wait_until

pytestmark = pytest.mark.anyio

TABS = 10
RUNS_A_TAB = 3
FOLLOW = """import("/client.js").then(({ connect }) => {
  const client = connect({ key: %s });
  window.feed = client.feed();
  window.runs = %s.map((id) => {
    const seqs = [];
    return Object.assign(client.openRun(id, { onEvent: ({ seq }) => seqs.push(seq) }), { seqs });
  });
})"""


async def check_whole(page: Page, last: int) -> None:
    """Wait for the last event; the log must be all of them, and the page must have noticed no hole."""
    # A tab that is not in front is not drawn.
    await page.call("Page.bringToFront")
    await wait_seq(page, last)
    assert await shown_seqs(page) == list(range(1, last + 1))
    assert "did not come" not in await page.text("[data-part=notices]")


async def test_offline_and_online_again(page: Page, gateway: RunningGateway) -> None:
    """Without a network the page says that it reconnects, and with one it goes on at once where it was."""
    run = await gateway.run_in("running")
    async with lay_proxy(gateway.port) as proxy:
        await sign_in(page, proxy.url, gateway.key, run_id=run["id"])
        await wait_link(page, "live")
        proxy.refuse()
        await page.set_online(False)
        proxy.cut_all(Cut.RESET)
        await wait_link(page, "reconnecting")
        await gateway.append(run["id"], LOG, LOG)
        await proxy.accept()
        await page.set_online(True)
        await wait_link(page, "live")
        answer = await gateway.append(run["id"], LOG)
        await check_whole(page, answer.json()["last_seq"])


async def test_a_drain_and_a_restart_are_survived_in_mid_run(page: Page, tmp_path: Path) -> None:
    """A deploy while a run is written: the page is told to come back, does, and lacks nothing."""
    async with serving(tmp_path / "data") as gateway, gateway.client() as client:
        run = (await client.post("/v1/runs", json={"agent_id": "tester", "mode": "direct"})).json()

        async def write(count: int) -> int:
            batch = [{"type": kind, "data": data} for kind, data in [LOG] * count]
            reply = await client.post(f"/v1/runs/{run['id']}/events", json={"events": batch})
            seq: int = reply.json()["last_seq"]
            return seq

        await write(5)
        await sign_in(page, gateway.url, gateway.key, run_id=run["id"])
        await wait_link(page, "live")
        await write(3)
        await gateway.stop()
        await wait_link(page, "reconnecting")
        await gateway.start()
        last = await write(3)
        await wait_link(page, "live")
        await check_whole(page, last)
        await gateway.stop()


async def test_two_tabs_watch_one_live_run(page: Page, gateway: RunningGateway) -> None:
    """One that was there and one that comes in the middle: each shows every event once; a reload changes nothing."""
    run = await gateway.run_in("running")
    await watch(page, gateway, run)
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await gateway.append(run["id"], LOG)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        other = await page.open_beside()
        await watch(other, gateway, run)
        await page.reload()
        await wait_link(page, "live")
        stop.set()
    answer = await gateway.append(run["id"], LOG, COMPLETE)
    for tab in (page, other):
        await wait_link(tab, "ended")
        await check_whole(tab, answer.json()["last_seq"])


async def test_ten_tabs_of_many_runs_share_their_connections(page: Page, gateway: RunningGateway) -> None:
    """Ten tabs, three runs each: one connection for all runs and one for the feed, and every tab can still ask."""
    runs = [await gateway.run_in("running") for _ in range(TABS * RUNS_A_TAB)]
    tabs = [page, *[await page.open_beside() for _ in range(TABS - 1)]]

    async def follow(tab: Page, mine: list[str]) -> None:
        await tab.open(f"{gateway.url}/console/icon.svg")
        await tab.wait("document.documentElement.localName === 'svg' && document.readyState === 'complete'")
        await tab.evaluate(FOLLOW % (json.dumps(gateway.key), json.dumps(mine)))

    shares = [[run["id"] for run in runs[at::TABS]] for at in range(TABS)]
    await asyncio.gather(*[follow(tab, mine) for tab, mine in zip(tabs, shares, strict=True)])
    for tab in tabs:
        await tab.wait("feed.state.link === 'live' && runs.every(({ state }) => state.link === 'live')")
    outlets = gateway.gateway.hub.outlets
    # A connection that another took the place of is open until the gateway has noticed.
    await wait_until(lambda: sum(outlet.grant.tenant == gateway.tenant for outlet in outlets) == 2)
    lasts = {run["id"]: (await gateway.append(run["id"], LOG, COMPLETE)).json()["last_seq"] for run in runs}
    for tab, ids in zip(tabs, shares, strict=True):
        await tab.wait("runs.every(({ state }) => state.link === 'ended')")
        expected = [list(range(1, lasts[run_id] + 1)) for run_id in ids]
        assert await tab.evaluate("runs.map(({ seqs }) => seqs)") == expected
        assert await tab.evaluate("fetch('/healthz').then(({ status }) => status)") == 200


async def test_without_a_shared_worker_a_hidden_tab_gives_its_connections_back(
    page: Page, gateway: RunningGateway
) -> None:
    """Each tab has its own there: hidden it lets go of them within moments; seen again it goes on where it was."""
    await page.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="""
          delete window.SharedWorker;
          window.hide = (hidden) => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
          };
        """,
    )
    run = await gateway.run_in("running")
    await watch(page, gateway, run)
    await page.evaluate("hide(true)")
    await wait_link(page, "asleep")
    outlets = gateway.gateway.hub.outlets
    await wait_until(lambda: all(outlet.grant.tenant != gateway.tenant for outlet in outlets))
    await gateway.append(run["id"], LOG)
    await page.evaluate("hide(false)")
    await wait_link(page, "live")
    await check_whole(page, (await gateway.append(run["id"], LOG)).json()["last_seq"])


async def test_catching_up_says_how_far(page: Page, gateway: RunningGateway) -> None:
    """A page that lacks events says so, and how many, until it has them."""
    await page.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="""
          window.told = [];
          new MutationObserver(() => {
            const link = document.querySelector("[data-part=link]");
            if (link && told.at(-1) !== link.textContent.trim()) told.push(link.textContent.trim());
          }).observe(document, { subtree: true, childList: true, characterData: true });
          delete window.SharedWorker;
        """,
    )
    run = await gateway.run_in("running")
    async with lay_proxy(gateway.port) as proxy:
        await sign_in(page, proxy.url, gateway.key, run_id=run["id"])
        await wait_link(page, "live")
        proxy.refuse()
        proxy.cut_all(Cut.RESET)
        await wait_link(page, "reconnecting")
        last = 0
        for _ in range(8):
            last = (await gateway.append(run["id"], *[LOG] * 1000)).json()["last_seq"]
        proxy.latency_s = 0.05
        await proxy.accept()
        await page.wait(f"document.querySelector('.raw .range').textContent === '1–{last}'", timeout_s=20)
        await wait_link(page, "live")
    told: list[Any] = await page.evaluate("told")
    assert any(word.startswith("catching up ") and word[12:].replace(",", "").isdigit() for word in told), told
