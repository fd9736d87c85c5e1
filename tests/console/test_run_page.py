"""The parts of a run's page: its numbers, forms, timeline, log, attempts, family, files and audit trail."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.console.test_looks import FORM
from tests.console.watching import act, wait_link, wait_seq, wait_status, watch
from tests.support.browser import Page
from tests.support.native import get_log, get_run
from tests.support.running import COMPLETE, FAIL, LOG, RunningGateway, wait_until
from tests.support.work import claim_one, put_agent, queue_run, write

pytestmark = pytest.mark.anyio

LEFT = "document.querySelector('.timeline .bar-line').getBoundingClientRect().width"


async def test_the_header_says_what_it_took(page: Page, gateway: RunningGateway) -> None:
    """Status, attempt, age, tokens and cost, as they grow."""
    await put_agent(gateway, "surveyor", queue="q1", retry={"max_attempts": 3})
    run_id = await queue_run(gateway, "q1", agent_id="surveyor")
    claimed = await claim_one(gateway, "q1")
    usage = {"provider": "p", "model": "m", "prompt_tokens": 1200, "completion_tokens": 34, "cost_microusd": 50_000}
    await write(gateway, claimed, ("usage.recorded", usage))
    await watch(page, gateway, {"id": run_id})
    for part, words in (
        ("tokens", "1,234 tokens"),
        ("cost", "$0.05"),
        ("attempt", "attempt 1 of 3"),
        ("age", "started"),
    ):
        await page.wait_text(words, within=f"[data-part={part}]")
    await write(gateway, claimed, ("usage.recorded", usage))
    await page.wait_text("2,468 tokens", within="[data-part=tokens]")


async def test_a_form_is_made_of_the_questions_schema(page: Page, gateway: RunningGateway) -> None:
    """Text, numbers, choices, flags and what lies within; what is left out is not sent; as JSON it goes, too."""
    run = await gateway.run_in("running")
    await gateway.append(run["id"], ("run.waiting_for_input", {"prompt": "Which shelf?", "schema": FORM}))
    await watch(page, gateway, run)
    await page.click("[name='answer.name']")
    await page.type("Sea")
    await page.click("[name='answer.count']")
    await page.type("3")
    await page.click("[name='answer.kinds'][value='1']")
    await page.click("[name='answer.where.dry']")
    await page.click(".question button.main")
    await wait_status(page, "running")
    (answer,) = [e["data"]["content"] for e in await get_log(gateway, run["id"]) if e["type"] == "run.input_received"]
    assert answer == {"name": "Sea", "count": 3, "kinds": ["map"], "where": {"dry": True}}
    await gateway.append(run["id"], ("run.waiting_for_input", {"prompt": "And now?", "schema": FORM}))
    await page.wait_text("And now?", within=".question")
    await page.click(".question button.plain")
    await page.click(".question textarea")
    await page.type('{"name":"Land"}')
    await page.click(".question button.main")
    await wait_status(page, "running")


async def test_the_timeline_is_zoomed(page: Page, gateway: RunningGateway) -> None:
    """By buttons and by keys; calls stand below their step."""
    run = await gateway.run_in("running")
    step, call = {"step_id": "s1", "name": "outer"}, {"call_id": "c1", "name": "grep", "input": {}}
    batch = [{"type": "step.started", "data": step}, {"type": "tool.call", "data": call, "step_id": "s1"}]
    await gateway.client.post(f"/v1/runs/{run['id']}/events", json={"events": batch})
    await watch(page, gateway, run)
    await page.wait("document.querySelectorAll('.timeline .row').length === 2")
    await gateway.append(run["id"], ("step.completed", {"step_id": "s1", "duration_ms": 900}), COMPLETE)
    await wait_link(page, "ended")
    padding = "parseInt(getComputedStyle(document.querySelectorAll('.timeline .label')[%d]).paddingLeft)"
    assert await page.evaluate(padding % 1) > await page.evaluate(padding % 0)
    assert "outer" in await page.text(".timeline .row")
    await page.click("[data-zoom=in]")
    await page.wait_text("× 2", within="[data-part=timeline]")
    await page.evaluate("document.querySelector('.timeline .virtual').focus()")
    await page.press("-", 189)
    await page.wait("document.querySelector('[data-zoom=fit]').disabled")
    await page.press("ArrowDown", 40)
    await page.press("Enter", 13)
    await page.wait_text("outer", within="[data-part=entry]")


async def test_the_log_is_searched_filtered_and_copied(page: Page, gateway: RunningGateway) -> None:
    """What is found includes what comes later; an event and everything that is listed go to the clipboard."""
    run = await gateway.run_in("running")
    await page.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="navigator.clipboard.writeText = async (text) => { window.copied = text; }",
    )
    for number in range(3):
        await gateway.append(run["id"], *[LOG] * 500, ("log", {"level": "error", "message": f"Needle {number}"}))
    await watch(page, gateway, run)
    await page.click(".raw [type=search]")
    await page.type("needle")
    await page.wait("document.querySelector('.raw .range').innerText === '3 found'")
    await gateway.append(run["id"], LOG, ("custom.needle", {"x": 1}))
    await page.wait("document.querySelector('.raw .range').innerText === '4 found'")
    await page.click("[data-copy=all]")
    await page.wait("copied.split('\\n').length === 4")
    await page.evaluate(
        "(() => { const kinds = document.querySelector('.raw select'); kinds.value = 'custom.*';"
        " kinds.dispatchEvent(new Event('change', { bubbles: true })); })()"
    )
    await page.wait("document.querySelector('.raw .range').innerText === '1 found'")
    await page.click(".raw .row")
    await page.wait_text("custom.needle", within="[data-part=event] pre")
    await page.click("[data-copy=one]")
    await page.wait("JSON.parse(copied).type === 'custom.needle'")


async def test_the_log_is_read_by_keyboard(page: Page, gateway: RunningGateway) -> None:
    """Home, End and the arrows move through it, Enter opens an event."""
    run = await gateway.run_in("running")
    await gateway.append(run["id"], *[LOG] * 300)
    await watch(page, gateway, run)
    await wait_seq(page, 304)
    await page.evaluate("document.querySelector('.raw .virtual').focus()")
    await page.press("Home", 36)
    await wait_seq(page, 1)
    await page.press("ArrowDown", 40)
    await page.press("Enter", 13)
    await page.wait_text('"seq": 2', within="[data-part=event] pre")
    await page.press("End", 35)
    await wait_seq(page, 304)


async def test_what_an_attempt_wrote_that_was_given_up_is_struck_through(page: Page, gateway: RunningGateway) -> None:
    """Text and steps of it stay to be seen, and each attempt is listed with why it ended."""
    await put_agent(gateway, "twice", queue="q2", retry={"max_attempts": 2, "initial_delay_s": 0})
    run_id = await queue_run(gateway, "q2", agent_id="twice")
    first = await claim_one(gateway, "q2")
    await write(
        gateway, first, ("message.delta", {"content": "wrong"}), ("step.started", {"step_id": "s", "name": "try"})
    )
    await watch(page, gateway, {"id": run_id})
    await write(gateway, first, FAIL)
    second = await claim_one(gateway, "q2")
    await write(gateway, second, ("message.delta", {"content": "right"}))
    await page.wait("document.querySelector('del.message').innerText.includes('wrong')")
    await page.wait("document.querySelector('div.message').innerText.includes('right')")
    await page.wait("document.querySelector('.timeline [data-withdrawn]')")
    for number, words in ((1, "attempt failed"), (2, "started")):
        await page.wait_text(words, within=f"[data-attempt='{number}']")
    await page.wait_text("attempt failed", within="[data-part=audit]")


async def test_the_family_is_a_tree(page: Page, gateway: RunningGateway) -> None:
    """Retries, replays and children, each with its status, leading to its page."""
    run = await gateway.run_in("failed")
    retry = (await gateway.client.post(f"/v1/runs/{run['id']}/retry")).json()
    child = await gateway.create_run(parent_run_id=run["id"], title="The child")
    await watch(page, gateway, run, link="ended")
    await page.wait("document.querySelectorAll('.tree li').length === 3")
    for run_id, words in ((retry["id"], "retry"), (child["id"], "child")):
        await page.wait_text(words, within=f".tree ul [data-run='{run_id}']")
    await page.click(f".tree ul [data-run='{child['id']}'] a")
    await page.wait_text("The child", within="h1")


async def test_actions_say_first_what_they_do(page: Page, gateway: RunningGateway) -> None:
    """A reason goes into the audit trail; whoever thinks better of it has changed nothing."""
    run = await gateway.run_in("running")
    await watch(page, gateway, run)
    await page.click("[data-verb=cancel]")
    await page.wait_text("has ten seconds to confirm", within="dialog")
    await page.press("Escape", 27)
    await page.wait("document.querySelector('dialog') === null")
    assert (await get_run(gateway, run["id"]))["status"] == "running"
    await page.click("[data-verb=pause]")
    await page.click("dialog [name=reason]")
    await page.type("for tea")
    await page.click("dialog [data-confirm]")
    await page.wait_text("paused · test · for tea", within="[data-part=audit]")
    await page.click("[data-verb=cancel]")
    await page.click("dialog [name=force]")
    await page.click("dialog [data-confirm]")
    await wait_status(page, "cancelled")


async def test_ended_runs_are_replayed_restarted_and_queued_again(page: Page, gateway: RunningGateway) -> None:
    """A replay leads to the new run; a restart and a dead letter go on where they are."""
    run = await gateway.run_in("completed")
    await watch(page, gateway, run, link="ended")
    await act(page, "restart")
    await wait_status(page, "queued")
    await page.wait_text("attempt 2", within="[data-part=attempt]")
    await gateway.append(run["id"], COMPLETE, attempt=2)
    await wait_link(page, "ended")
    await act(page, "replay")
    await page.wait_text(f"replay of {run['id']}")
    dead = await queue_run(gateway, "q3", dead_letter=True)
    await write(gateway, await claim_one(gateway, "q3"), LOG, FAIL)
    await page.open(f"{gateway.url}/console/#run={dead}")
    await wait_status(page, "dead_letter")
    await act(page, "dlq-replay")
    await wait_status(page, "queued")


async def test_files_and_outputs_are_listed_and_opened(page: Page, gateway: RunningGateway) -> None:
    """A file that the gateway keeps is downloaded; one that the run only told of is said to be elsewhere."""
    run = await gateway.run_in("running")
    sent = await gateway.client.post(
        f"/v1/runs/{run['id']}/files?name=tides.md", content=b"# Tides", headers={"content-type": "text/markdown"}
    )
    assert sent.status_code == 201, sent.text
    told: dict[str, Any] = {"file_id": "elsewhere", "name": "far.bin", "size_bytes": 2048, "content_type": "x/y"}
    await gateway.append(run["id"], ("file.created", told), ("output.set", {"key": "answer", "value": 42}))
    await watch(page, gateway, run)
    await page.wait_text("x/y, 2.0 KiB", within="[data-file=elsewhere]")
    await page.wait_text("answer", within="[data-output=answer]")
    await page.click("[data-file=elsewhere] button")
    await page.wait_text("does not keep this file", within="[data-file=elsewhere]")
    await page.click(f"[data-file={json.dumps(sent.json()['file_id'])}] button")
    await wait_until(lambda: any("/files/" in url and "signature=" in url for url in page.requests))


async def test_the_react_hook_follows_a_run(page: Page, gateway: RunningGateway) -> None:
    """`useRun`, over any library with React's hooks: state as it grows, and nothing held once it is gone."""
    run = await gateway.run_in("running")
    await gateway.append(run["id"], ("message.delta", {"content": "Hel"}))
    await watch(page, gateway, run)
    await page.evaluate(f"""(async () => {{
      const {{ bindReact }} = await import("/client-react.js");
      const {{ h, render }} = await import("/console/vendor/preact.js");
      const hooks = await import("/console/vendor/hooks.js");
      const useRun = bindReact(hooks);
      const root = document.body.appendChild(document.createElement("div"));
      root.id = "hooked";
      const View = () => {{
        const {{ state }} = useRun({json.dumps(run["id"])}, {{ key: {json.dumps(gateway.key)}, snapshot: true }});
        return h("p", null, state ? `${{state.link}}: ${{state.messages.map((m) => m.content).join()}}` : "");
      }};
      render(h(View), root);
      window.unhook = () => render(null, root);
    }})()""")
    await page.wait_text("live: Hel", within="#hooked")
    await gateway.append(run["id"], ("message.delta", {"content": "lo"}))
    await page.wait_text("live: Hello", within="#hooked")
    before = len([outlet for outlet in gateway.gateway.hub.outlets if outlet.grant.tenant == gateway.tenant])
    await page.evaluate("unhook()")
    await wait_until(
        lambda: len([o for o in gateway.gateway.hub.outlets if o.grant.tenant == gateway.tenant]) == before - 1
    )
