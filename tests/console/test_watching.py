"""What a person sees of runs, live."""

from __future__ import annotations

from typing import Any

import pytest

from tests.console.watching import shown_seqs, sign_in, wait_link, wait_seq, wait_status, watch
from tests.support.browser import Page
from tests.support.running import ASK, COMPLETE, FAIL, LOG, RunningGateway

pytestmark = pytest.mark.anyio

LAST_IS_SEEN = """(() => {
  const box = document.querySelector(".text"), last = [...box.querySelectorAll("p")].at(-1);
  return last.textContent.includes("%s") && last.getBoundingClientRect().bottom <= box.getBoundingClientRect().bottom;
})()"""
WORK: list[tuple[str, Any]] = [
    ("step.started", {"step_id": "s1", "name": "search the shelves"}),
    ("tool.call", {"call_id": "c1", "name": "grep", "input": {"pattern": "tide"}}),
    ("tool.progress", {"call_id": "c1", "progress": 0.5}),
    ("tool.result", {"call_id": "c1", "output": ["tides.md"], "status": "ok", "duration_ms": 1234}),
    ("step.completed", {"step_id": "s1", "duration_ms": 65_000}),
    ("log", {"level": "warning", "message": "one shelf is empty"}),
]


async def test_runs_appear_and_change_while_the_list_is_watched(page: Page, gateway: RunningGateway) -> None:
    """Newest first, each with its status as it is, with nobody reloading anything."""
    await gateway.create_run(title="The first")
    await sign_in(page, gateway.url, gateway.key)
    await page.wait_text("The first", within="#runs")
    second = await gateway.create_run(title="The second")
    await page.wait_text("The second", within="#runs li:first-child")
    await gateway.append(second["id"], LOG)
    await page.wait_text("running", within="#runs li:first-child")
    await gateway.append(second["id"], COMPLETE)
    await page.wait_text("completed", within="#runs li:first-child")
    assert await page.evaluate("document.querySelectorAll('#runs li').length") == 2


async def test_text_streams_as_it_is_written(page: Page, gateway: RunningGateway) -> None:
    """Each delta is on the page when it is in the log; the completed message replaces its pieces."""
    run = await gateway.run_in("running")
    await watch(page, gateway, run)
    for piece, sofar in [("Low", "Low"), (" water", "Low water"), (" at noon", "Low water at noon")]:
        await gateway.append(run["id"], ("message.delta", {"message_id": "m", "content": piece}))
        await page.wait(f"document.querySelector('.text .message p').textContent === '{sofar}'")
    await gateway.append(run["id"], ("message.completed", {"message_id": "m", "content": "Low water at noon."}))
    await page.wait("document.querySelector('.text .message p').textContent === 'Low water at noon.'")
    assert await page.evaluate("document.querySelectorAll('.text p').length") == 1


async def test_steps_and_tool_calls_stand_in_a_timeline(page: Page, gateway: RunningGateway) -> None:
    """With their durations, inputs and outputs, and while they run as running."""
    run = await gateway.run_in("running")
    await watch(page, gateway, run)
    await gateway.append(run["id"], *WORK[:2])
    await page.wait("document.querySelectorAll('.timeline .label[data-state=running]').length === 2")
    await gateway.append(run["id"], *WORK[2:])
    await page.wait_text("one shelf is empty", within=".raw .virtual")
    await page.wait("document.querySelectorAll('.timeline .label[data-state=done]').length === 2")
    step, call = await page.evaluate("[...document.querySelectorAll('.timeline .row')].map((row) => row.textContent)")
    assert all(word in step for word in ("search the shelves", "1 min"))
    assert all(word in call for word in ("grep", "1.2 s"))
    await page.click(".timeline .row:nth-child(2)")
    for words in ('"pattern": "tide"', "tides.md"):
        await page.wait_text(words, within="[data-part=entry]")


@pytest.mark.parametrize(
    ("ending", "status", "words"),
    [(COMPLETE, "completed", '"answer": 42'), (FAIL, "failed", "broken: It broke.")],
)
async def test_the_outcome_is_shown(
    page: Page, gateway: RunningGateway, ending: tuple[str, Any], status: str, words: str
) -> None:
    """A finished run says what it gave, or why it gave nothing; its stream is over, not broken."""
    run = await gateway.run_in("running")
    await watch(page, gateway, run)
    await gateway.append(run["id"], WORK[0], ending)
    await wait_status(page, status)
    await page.wait_text(words, within="[data-part=outcome]")
    await wait_link(page, "ended")
    await page.wait("document.querySelector('.timeline .label[data-state=abandoned]')")


async def test_a_reload_in_mid_run_shows_the_whole_log_again(page: Page, gateway: RunningGateway) -> None:
    """Exactly the events 1 to n, each once and in order, and then those to come."""
    run = await gateway.run_in("running")
    await gateway.append(run["id"], *WORK)
    await watch(page, gateway, run)
    await wait_seq(page, 10)
    await page.reload()
    await wait_link(page, "live")
    answer = await gateway.append(run["id"], LOG, LOG)
    last = answer.json()["last_seq"]
    await wait_seq(page, last)
    assert await shown_seqs(page) == list(range(1, last + 1))
    assert await page.text(".raw .range") == f"1–{last}"


async def test_a_long_log_is_shown_from_its_end(page: Page, gateway: RunningGateway) -> None:
    """The page does not grow with the run: of the log only the rows in view exist, and any of them can be."""
    run = await gateway.run_in("running")
    for _ in range(2):
        await gateway.append(run["id"], *[LOG] * 500)
    await watch(page, gateway, run)
    await wait_seq(page, 1004)
    assert await page.evaluate("document.querySelectorAll('.raw .row').length") < 40
    assert await page.text(".raw .range") == "1–1004"
    assert await shown_seqs(page) == list(range(1, 1005))


async def test_a_trimmed_log_is_said_to_have_a_gap(page: Page, gateway: RunningGateway) -> None:
    """Nothing is passed over in silence."""
    run = await gateway.run_in("completed")
    await gateway.client.post(f"/v1/runs/{run['id']}/purge", json={"through_seq": 2})
    await watch(page, gateway, run, link="ended")
    await page.wait_text("Gap: events 1–2 are no longer in the log.")
    assert "gap" in await page.text("[data-part=link]")
    assert await shown_seqs(page) == list(range(3, run["head_seq"] + 1))


async def test_a_removed_log_leaves_the_record(page: Page, gateway: RunningGateway) -> None:
    """Once the log is gone, the page shows how the run ended and says that the rest is gone."""
    run = await gateway.run_in("completed")
    await gateway.client.post(f"/v1/runs/{run['id']}/purge", json={"keep_record": True})
    await watch(page, gateway, run, link="ended")
    await page.wait_text("The run's log has been removed after its retention.")
    await page.wait_text('"answer": 42', within="[data-part=outcome]")


async def test_a_restarted_run_goes_on_where_it_is_watched(page: Page, gateway: RunningGateway) -> None:
    """A page that had come to the end follows the next attempt; what it does again is marked."""
    run = await gateway.run_in("running")
    await gateway.append(run["id"], ("message.delta", {"content": "first words"}), FAIL)
    await watch(page, gateway, run, link="ended")
    await gateway.client.post(f"/v1/runs/{run['id']}/restart")
    answer = await gateway.append(run["id"], ("message.delta", {"content": "once more"}), attempt=2)
    await page.wait_text("once more", within=".text")
    await page.wait_text("attempt 2", within="[data-part=attempt]")
    await page.wait("document.querySelector('del.message').textContent.includes('first words')")
    await wait_seq(page, answer.json()["last_seq"])
    assert await shown_seqs(page) == list(range(1, answer.json()["last_seq"] + 1))


async def test_a_tab_says_how_its_run_stands(page: Page, gateway: RunningGateway) -> None:
    """The title of the window is enough to know that somebody is waited for."""
    run = await gateway.run_in("running")
    await gateway.append(run["id"], ASK)
    await watch(page, gateway, run)
    await page.wait("document.title === 'waiting for input · A run of tester'")


async def test_text_that_is_being_written_is_followed(page: Page, gateway: RunningGateway) -> None:
    """A long text is seen where it is written, and once the run has ended from its beginning."""
    run = await gateway.run_in("running")
    await watch(page, gateway, run)
    lines = [("message.delta", {"content": f"line {number}\n\n"}) for number in range(200)]
    await gateway.append(run["id"], ("message.delta", {"content": "the beginning\n"}), *lines)
    await page.wait(LAST_IS_SEEN % "line 199")
    answer = await gateway.append(run["id"], ("message.delta", {"content": "the end"}), COMPLETE)
    await page.wait(LAST_IS_SEEN % "the end")
    await page.reload()
    await wait_link(page, "ended")
    await wait_seq(page, answer.json()["last_seq"])
    box = "document.querySelector('.text').getBoundingClientRect()"
    await page.wait(f"document.querySelector('.text p').getBoundingClientRect().top >= {box}.top")


async def test_the_bar_counts_the_questions_that_wait(page: Page, gateway: RunningGateway) -> None:
    """From any page it is seen that somebody is waited for, and how often."""
    await sign_in(page, gateway.url, gateway.key)
    assert await page.evaluate("document.querySelector('#waiting')") is None
    runs = [await gateway.run_in("running") for _ in range(2)]
    for run in runs:
        await gateway.append(run["id"], ASK)
    await page.wait_text("2", within="#waiting")
    await gateway.client.post(f"/v1/runs/{runs[0]['id']}/cancel", json={"force": True})
    await page.wait_text("1", within="#waiting")
