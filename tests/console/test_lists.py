"""The console's lists: filters, pages, many runs at once, dead letters, queues, workers, agents, questions."""

from __future__ import annotations

import json

import pytest

from tests.console.watching import sign_in, wait_link
from tests.support.browser import Page
from tests.support.native import get_run
from tests.support.running import ASK, FAIL, LOG, RunningGateway
from tests.support.work import claim_one, put_agent, queue_run, write

pytestmark = pytest.mark.anyio

ROWS = "[...document.querySelectorAll('#runs li')].map((row) => row.dataset.id)"


async def open_list(page: Page, gateway: RunningGateway, address: str = "") -> None:
    """Open a list as somebody who is signed in."""
    await sign_in(page, gateway.url, gateway.key)
    await page.open(f"{gateway.url}/console/#{address}")


async def wait_rows(page: Page, *run_ids: str) -> None:
    """Wait until exactly these runs are listed, in this order."""
    await page.wait(f"JSON.stringify({ROWS}) === {json.dumps(json.dumps(run_ids, separators=(',', ':')))}")


async def test_filters_live_in_the_address(page: Page, gateway: RunningGateway) -> None:
    """A click on a status and a filled field are in the address, which shows the same to whoever opens it."""
    failed = await gateway.run_in("failed")
    running = await gateway.run_in("running")
    tagged = await gateway.create_run(tags={"team": "tides"}, agent_id="other")
    await open_list(page, gateway)
    await wait_rows(page, tagged["id"], running["id"], failed["id"])
    await page.click(".chips label:has([value=failed])")
    await wait_rows(page, failed["id"])
    assert await page.evaluate("location.hash") == "#status=failed"
    await page.click(".chips label:has([value=running])")
    await wait_rows(page, running["id"], failed["id"])
    await page.open(f"{gateway.url}/console/#")
    await page.click(".filters summary")
    await page.click("[name=tag]")
    await page.type("team:tides")
    await page.press("Enter", 13)
    await wait_rows(page, tagged["id"])
    await page.reload()
    await wait_rows(page, tagged["id"])
    assert await page.evaluate("document.querySelector('[name=tag]').value") == "team:tides"
    await page.open(f"{gateway.url}/console/#tag=team:none")
    await page.wait_text("No run fits.")
    await page.open(f"{gateway.url}/console/#payload=nojson")
    await page.wait("document.querySelector('[data-part=list-error]')?.innerText.length > 10")


async def test_a_filtered_list_takes_in_what_comes_to_fit(page: Page, gateway: RunningGateway) -> None:
    """A run that enters the status that is looked at appears, without anybody reloading."""
    run = await gateway.run_in("running")
    await open_list(page, gateway, "status=failed")
    await page.wait_text("No run fits.")
    await gateway.append(run["id"], FAIL)
    await wait_rows(page, run["id"])


async def test_pages_are_turned(page: Page, gateway: RunningGateway) -> None:
    """Older and back to the newest, by links whose addresses can be kept; no run is on two pages."""
    made = [(await gateway.create_run())["id"] for _ in range(60)][::-1]
    await open_list(page, gateway)
    await wait_rows(page, *made[:50])
    await page.click("#older")
    await wait_rows(page, *made[50:])
    await page.reload()
    await wait_rows(page, *made[50:])
    await page.click("#newest")
    await wait_rows(page, *made[:50])


async def test_picked_runs_are_cancelled_and_replayed(page: Page, gateway: RunningGateway) -> None:
    """What will happen is said, how far it is told, and each run that refused is named with its reason."""
    runs = [await gateway.run_in("queued") for _ in range(24)]
    done = await gateway.run_in("completed")
    await open_list(page, gateway)
    await wait_rows(page, done["id"], *[run["id"] for run in runs[::-1]])
    await page.click("#pick-all")
    await page.click("[data-bulk=cancel]")
    await page.wait_text("25 runs will be cancelled", within="dialog")
    await page.click("dialog [data-confirm]")
    await page.wait_text("25 of 25 done, 1 refused.", within="dialog")
    await page.wait_text("A run that is completed cannot cancel", within="dialog .failures")
    await page.click("dialog [data-close]")
    await page.wait("document.querySelectorAll('#runs [data-status=cancelled]').length === 24")
    await page.click("#runs li:first-child input")
    await page.click("[data-bulk=replay]")
    await page.click("dialog [data-confirm]")
    await page.wait_text("1 of 1 done.", within="dialog")
    await page.click("dialog [data-close]")
    await page.wait("document.querySelectorAll('#runs li').length === 26")


async def test_all_that_fit_are_cancelled(page: Page, gateway: RunningGateway) -> None:
    """Those on other pages, too, and nothing that the filters leave out."""
    others = await gateway.run_in("queued")
    made = [(await gateway.create_run(agent_id="many"))["id"] for _ in range(70)]
    await open_list(page, gateway, "agent_id=many")
    await page.wait("document.querySelectorAll('#runs li').length === 50")
    await page.click("[data-bulk=cancel-all]")
    await page.click("dialog [data-confirm]")
    await page.wait_text("70 done.", within="dialog")
    assert {(await get_run(gateway, run_id))["status"] for run_id in made} == {"cancelled"}
    assert (await get_run(gateway, others["id"]))["status"] == "queued"


async def make_dead_letter(gateway: RunningGateway, queue: str) -> str:
    """Return a run that has failed for good and is kept."""
    run_id = await queue_run(gateway, queue, dead_letter=True)
    await write(gateway, await claim_one(gateway, queue), LOG, FAIL)
    assert (await get_run(gateway, run_id))["status"] == "dead_letter"
    return run_id


async def test_dead_letters_are_queued_again(page: Page, gateway: RunningGateway) -> None:
    """They have a page, which says why each is there; those that are picked go back to their queue, or all do."""
    dead = [await make_dead_letter(gateway, "graves") for _ in range(3)]
    await open_list(page, gateway, "page=dlq")
    await wait_rows(page, *dead[::-1])
    await page.wait_text("broken: It broke.", within="#runs")
    await page.click("#runs li:first-child input")
    await page.click("[data-bulk=dlq-replay]")
    await page.click("dialog [data-confirm]")
    await page.wait_text("1 of 1 done.", within="dialog")
    await page.click("dialog [data-close]")
    await wait_rows(page, dead[1], dead[0])
    await page.click("[data-bulk=dlq-replay-all]")
    await page.click("dialog [data-confirm]")
    await page.wait_text("2 done.", within="dialog")
    await page.click("dialog [data-close]")
    await page.wait_text("No dead letters")
    assert {(await get_run(gateway, run_id))["status"] for run_id in dead} == {"queued"}


async def test_queues_and_workers_are_shown_with_their_lag(page: Page, gateway: RunningGateway) -> None:
    """How many wait and since when, who holds what and until when; both as they are, without a reload."""
    await queue_run(gateway, "slow", title="first in line")
    await open_list(page, gateway, "page=queues")
    await page.wait_text("for ", within="[data-queue=slow]")
    claimed = (await gateway.client.post("/v1/claims", json={"queues": ["slow"], "worker": "w-7"})).json()["data"][0]
    await page.wait_text("first in line", within="[data-worker=w-7]")
    await page.wait_text("nothing waits", within="[data-queue=slow]")
    await write(gateway, claimed, LOG, FAIL)
    await page.wait_text("No worker holds a run.")


async def test_agents_are_shown_and_lead_to_their_runs(page: Page, gateway: RunningGateway) -> None:
    """Each with its version, queue and limits."""
    run = await gateway.create_run(agent_id="surveyor")
    await put_agent(gateway, "surveyor", queue="fast", max_concurrent=3, retry={"max_attempts": 4}, dead_letter=True)
    await open_list(page, gateway, "page=agents")
    for words in ("fast", "4, ", "3", "kept"):
        await page.wait_text(words, within="[data-agent=surveyor]")
    await page.click("[data-agent=surveyor] a")
    await wait_rows(page, run["id"])


async def test_every_open_question_is_on_one_page(page: Page, gateway: RunningGateway) -> None:
    """Questions of all runs are answered where they are listed, and come and go by themselves."""
    run = await gateway.run_in("running")
    await open_list(page, gateway, "page=questions")
    await page.wait_text("Nobody waits for an answer.")
    await gateway.append(run["id"], ("run.waiting_for_input", {"prompt": "Sail?", "schema": {"type": "boolean"}}))
    await page.wait_text("Sail?", within=".question")
    await page.click(".question button:first-child")
    await page.wait_text("Nobody waits for an answer.")
    assert (await get_run(gateway, run["id"]))["status"] == "running"


async def test_a_gateway_that_is_away_is_said_to_be(page: Page, gateway: RunningGateway) -> None:
    """A list that cannot be read says why, and fills once it can."""
    await gateway.run_in("running")
    await open_list(page, gateway, "page=queues")
    await page.evaluate("void (window.real = fetch, window.fetch = () => Promise.reject(new TypeError()))")
    await page.open(f"{gateway.url}/console/#agent_id=tester")
    await page.wait(
        "document.querySelector('[data-part=list-error]')?.innerText === 'The gateway cannot be reached.'", timeout_s=20
    )
    await page.evaluate("void (window.fetch = real)")
    await page.wait("document.querySelectorAll('#runs li').length === 1")
    await wait_link(page, "live", of="#feed-state")


async def test_a_run_that_asks_is_seen_from_the_list(page: Page, gateway: RunningGateway) -> None:
    """A status changes where it stands."""
    run = await gateway.run_in("running")
    await open_list(page, gateway)
    await page.wait_text("running", within="#runs")
    await gateway.append(run["id"], ASK)
    await page.wait_text("waiting for input", within="#runs")
