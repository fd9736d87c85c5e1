"""What a person does to runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.console.watching import act, sign_in, wait_status, watch
from tests.support.browser import Page
from tests.support.native import get_log, get_run
from tests.support.running import RunningGateway, wait_until

pytestmark = pytest.mark.anyio

BOX = ".question:first-child :is(input, textarea)"


async def ask(gateway: RunningGateway, *questions: dict[str, Any]) -> dict[str, Any]:
    """Return a run that asks these."""
    run = await gateway.run_in("running")
    events = [("run.waiting_for_input", {"prompt": "Which way?", **question}) for question in questions]
    answer = await gateway.append(run["id"], *events)
    assert answer.status_code == 200, answer.text
    return run


async def answers(gateway: RunningGateway, run: dict[str, Any]) -> list[Any]:
    """Return what has been answered."""
    log = await get_log(gateway, run["id"])
    return [event["data"]["content"] for event in log if event["type"] == "run.input_received"]


async def wait_questions(page: Page, count: int) -> None:
    """Wait until so many questions are open."""
    await page.wait(f"document.querySelectorAll('.question').length === {count}")


ENUM = {"enum": ["left", {"exit": 3}, True, "true", "constructor"]}


async def test_a_choice_is_a_button(page: Page, gateway: RunningGateway) -> None:
    """A boolean has two, an enumeration one for each of its values; the value itself is what is sent."""
    boolean = {"type": "boolean"}
    choices: list[tuple[dict[str, Any], int, str, Any]] = [
        (boolean, 1, "Yes", True),
        (boolean, 2, "No", False),
        (ENUM, 1, "left", "left"),
        (ENUM, 2, '{\n  "exit": 3\n}', {"exit": 3}),
        (ENUM, 4, "true", "true"),
        (ENUM, 5, "constructor", "constructor"),
    ]
    run = await ask(gateway, *[{"schema": schema} for schema, *_ in choices])
    await watch(page, gateway, run)
    for left, (_, number, label, _) in zip(range(len(choices), 0, -1), choices, strict=True):
        await wait_questions(page, left)
        button = f".question:first-child button:nth-of-type({number})"
        assert await page.evaluate(f"document.querySelector('{button}').textContent") == label
        await page.click(button)
    await wait_status(page, "running")
    assert await answers(gateway, run) == [content for *_, content in choices]


async def test_an_answer_is_written_where_there_is_no_choice(page: Page, gateway: RunningGateway) -> None:
    """Text for a string, JSON for anything else, and what fits best where nothing is asked for."""
    written: list[tuple[Any, str, Any]] = [
        ({"type": "string"}, '{"not": "json"}', '{"not": "json"}'),
        ({"type": "object"}, '{"x": [1]}', {"x": [1]}),
        ({"type": "integer"}, "12", 12),
        (None, "to the left", "to the left"),
        (None, "12", 12),
    ]
    run = await ask(gateway, *[{"schema": schema} for schema, *_ in written])
    await watch(page, gateway, run)
    for left, (_, text, _) in zip(range(len(written), 0, -1), written, strict=True):
        await wait_questions(page, left)
        await page.click(BOX)
        await page.type(text)
        await page.click(".question:first-child button")
    await wait_status(page, "running")
    assert await answers(gateway, run) == [content for *_, content in written]


async def test_an_answer_that_does_not_fit_can_be_mended(page: Page, gateway: RunningGateway) -> None:
    """What is wrong is said beside the form, which keeps what was written."""
    run = await ask(gateway, {"schema": {"type": "object", "required": ["x"]}})
    await watch(page, gateway, run)
    await page.click(BOX)
    await page.type("{")
    await page.click(".question button")
    await page.wait_text("This is not JSON", within=".question")
    await page.type("}")
    await page.click(".question button")
    await page.wait_text("'x' is a required property", within=".question")
    assert await page.evaluate(f"document.querySelector('{BOX}').value") == "{}"
    assert await answers(gateway, run) == []


async def test_a_question_that_somebody_else_answers_goes_away(page: Page, gateway: RunningGateway) -> None:
    """Two people may look at one question; the one who is late sees whose answer counted."""
    run = await ask(gateway, {"schema": {"type": "boolean"}})
    await watch(page, gateway, run)
    await page.wait_text("Which way?", within=".question")
    await gateway.client.post(f"/v1/runs/{run['id']}/input", json={"content": True, "triggered_by": "Ada"})
    await page.wait("document.querySelector('.question') === null")
    await page.wait_text("input received · true · Ada", within="[data-part=audit]")


async def test_a_deadline_is_counted_down(page: Page, gateway: RunningGateway) -> None:
    """Whoever is asked sees how long there is, and what happens then."""
    run = await ask(gateway, {"schema": {"type": "boolean"}, "timeout_s": 59, "on_timeout": "cancel"})
    await watch(page, gateway, run)
    await page.wait_text("If nobody answers within ", within=".question")
    await page.wait_text(", the run is cancelled.", within=".question")
    await page.wait("/within [1-5]?\\d s/.test(document.querySelector('.question').innerText)")


async def test_a_default_that_will_count_is_named(page: Page, gateway: RunningGateway) -> None:
    """Whoever leaves a question alone knows what the answer will be, as the button would say it."""
    question = {"schema": {"type": "boolean"}, "timeout_s": 600, "on_timeout": "default", "default": False}
    await watch(page, gateway, await ask(gateway, question))
    await page.wait_text("this counts: No.", within=".question")


async def test_a_run_is_paused_resumed_and_cancelled_by_buttons(page: Page, gateway: RunningGateway) -> None:
    """Each state offers what it permits, and nothing else."""
    run = await gateway.run_in("running")
    await watch(page, gateway, run)
    await act(page, "pause")
    await wait_status(page, "paused")
    assert await page.evaluate("document.querySelector('[data-verb=pause]')") is None
    await act(page, "resume")
    await wait_status(page, "running")
    await act(page, "cancel")
    await wait_status(page, "cancelling")
    await gateway.append(run["id"], ("run.cancelled", {"reason": "as asked"}))
    await wait_status(page, "cancelled")


async def test_a_retry_leads_to_the_new_run(page: Page, gateway: RunningGateway) -> None:
    """The page goes on with the run that was made, and says which one it is a retry of."""
    run = await gateway.run_in("failed")
    await watch(page, gateway, run, link="ended")
    await act(page, "retry")
    await page.wait_text(f"retry of {run['id']}")
    await wait_status(page, "queued")
    assert await page.evaluate("location.hash") != f"#run={run['id']}"


async def test_a_refused_action_says_why(page: Page, gateway: RunningGateway) -> None:
    """A button that came too late shows the gateway's own words."""
    run = await gateway.run_in("running")
    await watch(page, gateway, run)
    await page.wait("document.querySelector('[data-verb=pause]').checkVisibility()")
    # The page no longer learns how the run stands.
    await page.evaluate(
        "void ((real) => { fetch = (url, how) => how?.method === 'GET' ? new Promise(() => {}) : real(url, how); })"
        "(fetch)"
    )
    await gateway.client.post(f"/v1/runs/{run['id']}/pause")
    await page.click("[data-verb=pause]")
    await page.click("dialog [data-confirm]")
    await page.wait_text("A run that is paused cannot pause", within="dialog [data-part=error]")


async def test_everything_can_be_done_by_keyboard(page: Page, gateway: RunningGateway) -> None:
    """Tab reaches a run, its buttons and its question; Enter presses them."""
    run = await ask(gateway, {"schema": {"type": "boolean"}})
    await sign_in(page, gateway.url, gateway.key)
    await page.wait_text("waiting for input", within="#runs")
    await tab_to(page, "document.activeElement.matches('#runs li a')")
    await page.press("Enter", 13)
    await page.wait_text("Which way?", within=".question")
    await tab_to(page, "document.activeElement.dataset.verb === 'pause'")
    await tab_to(page, "document.activeElement.innerText === 'Yes'")
    await page.press("Enter", 13)
    await wait_until(lambda: _is_answered(gateway, run))
    assert await answers(gateway, run) == [True]


async def _is_answered(gateway: RunningGateway, run: dict[str, Any]) -> bool:
    return bool((await get_run(gateway, run["id"]))["status"] == "running")


async def tab_to(page: Page, condition: str) -> None:
    """Press Tab until the focus is there; it must be visible on the way."""
    for _ in range(60):
        await page.press("Tab", 9)
        if await page.evaluate(f"Boolean({condition})"):
            assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    raise AssertionError(f"Tab does not lead to {condition}")


async def test_the_page_asks_only_its_own_gateway(page: Page, gateway: RunningGateway) -> None:
    """It works where nothing else is reachable."""
    run = await gateway.run_in("completed")
    await watch(page, gateway, run, link="ended")
    assert page.requests
    assert [url for url in page.requests if not url.startswith(f"{gateway.url}/")] == []
    assert page.errors == []
