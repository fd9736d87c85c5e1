"""The page over a gateway that goes away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.console.watching import shown_seqs, sign_in, wait_link, wait_seq
from tests.support.browser import Page
from tests.support.processes import serving
from tests.support.running import LOG

pytestmark = pytest.mark.anyio


async def append(client: httpx.AsyncClient, run_id: str, *events: tuple[str, Any]) -> int:
    """Append events and return the last one's seq."""
    batch = [{"type": kind, "data": data} for kind, data in events]
    answer = await client.post(f"/v1/runs/{run_id}/events", json={"events": batch})
    seq: int = answer.json()["last_seq"]
    return seq


async def test_a_page_outlives_its_gateway_and_unlearns_what_the_log_lost(page: Page, tmp_path: Path) -> None:
    """Killed and started again, the gateway is found by itself, with no event lost or shown twice; when it
    comes back with an older log, the page says so and shows that log."""
    async with serving(tmp_path / "data") as gateway, gateway.client() as client:
        run = (await client.post("/v1/runs", json={"agent_id": "tester", "mode": "direct"})).json()
        await append(client, run["id"], LOG, LOG)
        await sign_in(page, gateway.url, gateway.key, run_id=run["id"])
        await wait_link(page, "live")

        await gateway.kill()
        await wait_link(page, "reconnecting")
        await gateway.start()
        seq = await append(client, run["id"], LOG)
        await wait_seq(page, seq)
        await wait_link(page, "live")
        assert await shown_seqs(page) == list(range(1, seq + 1))

        await gateway.stop()
        shutil.copytree(
            tmp_path / "data", tmp_path / "older", ignore=lambda _, names: {n for n in names if "sock" in n}
        )
        await gateway.start()
        await wait_seq(page, await append(client, run["id"], LOG, LOG))
        await gateway.stop()
        shutil.rmtree(tmp_path / "data")
        (tmp_path / "older").rename(tmp_path / "data")
        await gateway.start()
        await page.wait_text("Reset (ahead_of_log)")
        await wait_link(page, "live")
        assert await shown_seqs(page) == list(range(1, seq + 1))
        assert "reset" in await page.text("[data-part=link]")
        await gateway.stop()
