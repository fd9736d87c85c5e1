"""Folds: what a log means so far, each with the event up to which it holds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.native import accepted, act, ask, get_log, get_run, refused
from tests.support.running import COMPLETE, RunningGateway

pytestmark = pytest.mark.anyio

STORY: list[tuple[str, Any]] = [
    ("step.started", {"step_id": "s1", "name": "search", "input": {"q": "tea"}}),
    ("tool.call", {"call_id": "c1", "name": "grep", "input": {"pattern": "tea"}}),
    ("tool.progress", {"call_id": "c1", "progress": 0.5}),
    ("tool.result", {"call_id": "c1", "output": ["a"], "status": "ok", "duration_ms": 12}),
    ("step.completed", {"step_id": "s1", "output": "found", "duration_ms": 20}),
    ("message.delta", {"content": "Hel", "message_id": "m1", "role": "assistant"}),
    ("message.delta", {"content": "lo", "message_id": "m1"}),
    ("message.completed", {"content": "Hello", "message_id": "m1"}),
    ("usage.recorded", {"provider": "p", "model": "m", "prompt_tokens": 3, "completion_tokens": 4, "credits": 1.5}),
    ("checkpoint.created", {"source": "loop", "state": {"n": 1}}),
    ("checkpoint.created", {"source": "loop", "state": {"n": 2}}),
    ("output.set", {"key": "report", "value": "draft"}),
    ("output.set", {"key": "report", "value": "final"}),
    ("file.created", {"file_id": "f1", "name": "r.md", "size_bytes": 5, "content_type": "text/markdown"}),
    ("log", {"level": "info", "message": "done soon"}),
    ("custom.mood", {"good": True}),
]


async def fold(api: RunningGateway, run_id: str, name: str) -> dict[str, Any]:
    """Return a fold of a run."""
    return accepted(await api.client.get(f"/v1/runs/{run_id}/{name}"))


async def test_each_fold_tells_its_part_of_the_story(api: RunningGateway) -> None:
    """Steps, calls, messages, usage, outputs, checkpoints, files, history: as they stand after the last event."""
    run = await api.create_run()
    accepted(await api.append(run["id"], *STORY))
    (step,) = (await fold(api, run["id"], "steps"))["data"]
    assert (step["step_id"], step["status"], step["output"], step["duration_ms"]) == ("s1", "completed", "found", 20)
    (call,) = (await fold(api, run["id"], "tool-calls"))["data"]
    assert (call["call_id"], call["status"], call["output"], call["progress"]) == ("c1", "ok", ["a"], 0.5)
    (message,) = (await fold(api, run["id"], "messages"))["data"]
    assert (message["message_id"], message["content"], message["role"]) == ("m1", "Hello", "assistant")
    usage = await fold(api, run["id"], "usage")
    assert usage["totals"] == (await get_run(api, run["id"]))["usage"]
    assert [(u["model"], u["prompt_tokens"]) for u in usage["data"]] == [("m", 3)]
    assert [(o["key"], o["value"]) for o in (await fold(api, run["id"], "outputs"))["data"]] == [("report", "final")]
    assert [c["state"] for c in (await fold(api, run["id"], "checkpoints"))["data"]] == [{"n": 1}, {"n": 2}]
    assert [f["file_id"] for f in (await fold(api, run["id"], "files"))["data"]] == ["f1"]
    history = [change["type"] for change in (await fold(api, run["id"], "history"))["data"]]
    assert history == ["run.created", "run.queued", "run.started"]


async def test_every_fold_says_up_to_which_event_it_holds(api: RunningGateway) -> None:
    """The cursor it names is where a stream goes on after it."""
    run = await api.create_run()
    accepted(await api.append(run["id"], *STORY))
    head = (await get_run(api, run["id"]))["head_seq"]
    names = ["steps", "tool-calls", "messages", "usage", "outputs", "checkpoints", "files", "history"]
    for name in [*names, "snapshot", "state", "debug-bundle"]:
        shown = await fold(api, run["id"], name)
        assert shown["as_of_seq"] == head, name
        page = accepted(await api.client.get(f"/v1/runs/{run['id']}/events", params={"after": shown["as_of"]}))
        assert (page["data"], page.get("reset"), page.get("gap")) == ([], None, None)


async def test_a_fold_grows_with_its_log(api: RunningGateway) -> None:
    """Event by event, it is what folding the whole log anew would give."""
    run = await api.create_run()
    for event in STORY:
        accepted(await api.append(run["id"], event))
        await fold(api, run["id"], "snapshot")
    grown = (await fold(api, run["id"], "snapshot"))["state"]
    fresh = await api.create_run()
    accepted(await api.append(fresh["id"], *STORY))
    whole = (await fold(api, fresh["id"], "snapshot"))["state"]
    volatile = {"history", "as_of_seq"}

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if not k.endswith("at") and k not in volatile}
        return [plain(item) for item in value] if isinstance(value, list) else value

    assert plain(grown) == plain(whole)


async def test_the_state_is_where_a_worker_goes_on(api: RunningGateway) -> None:
    """The last checkpoint with its seq, the attempt, and what is being asked."""
    run = await api.create_run()
    assert (await fold(api, run["id"], "state"))["state"] is None
    accepted(await api.append(run["id"], *STORY))
    request_id = await ask(api, run["id"])
    state = await fold(api, run["id"], "state")
    log = await get_log(api, run["id"])
    assert (state["state"], state["attempt"], state["status"]) == ({"n": 2}, 1, "waiting_for_input")
    assert log[state["checkpoint_seq"] - 1]["data"]["state"] == {"n": 2}
    assert [q["request_id"] for q in state["open_requests"]] == [request_id]


async def test_a_restart_supersedes_what_was_folded_before(api: RunningGateway) -> None:
    """What the abandoned attempt wrote is marked, and its usage still counts."""
    run = await api.create_run()
    accepted(await api.append(run["id"], *STORY, COMPLETE))
    accepted(await act(api, run["id"], "restart"))
    accepted(await api.append(run["id"], *STORY, attempt=2))
    messages = (await fold(api, run["id"], "messages"))["data"]
    assert [message.get("superseded", False) for message in messages] == [True, False]
    assert (await fold(api, run["id"], "usage"))["totals"]["prompt_tokens"] == 6


async def test_a_debug_bundle_has_all_of_it(api: RunningGateway) -> None:
    """One answer for whoever looks for what went wrong."""
    run = await api.create_run()
    accepted(await api.append(run["id"], *STORY))
    await ask(api, run["id"])
    bundle = await fold(api, run["id"], "debug-bundle")
    assert bundle["run"] == await get_run(api, run["id"])
    for name in ("history", "steps", "tool_calls", "messages", "usage", "outputs", "checkpoints", "questions", "logs"):
        assert bundle[name], name


async def test_a_list_is_paged(api: RunningGateway) -> None:
    """Every entry once, in the order of their beginnings, whatever the size of a page."""
    run = await api.create_run()
    for n in range(7):
        accepted(await api.append(run["id"], ("step.started", {"step_id": f"s{n}", "name": "n"})))
    whole = await fold(api, run["id"], "steps")
    assert ([s["step_id"] for s in whole["data"]], whole["has_more"]) == ([f"s{n}" for n in range(7)], False)
    for limit in (1, 3, 7, 1000):
        found, params = [], {"limit": str(limit)}
        while True:
            page = accepted(await api.client.get(f"/v1/runs/{run['id']}/steps", params=params))
            assert len(page["data"]) <= limit
            assert page["as_of_seq"] == whole["as_of_seq"]
            found += page["data"]
            if not page["has_more"]:
                break
            params["cursor"] = page["next_cursor"]
        assert found == whole["data"]


async def test_a_large_value_is_found_by_its_seq(api: RunningGateway) -> None:
    """A fold leaves it out and names the event that has it; a worker's last checkpoint is whole."""
    run, large = await api.create_run(), "x" * 20_000
    accepted(await api.append(run["id"], ("tool.call", {"call_id": "c", "name": "n", "input": large})))
    accepted(await api.append(run["id"], ("checkpoint.created", {"source": "loop", "state": [large]})))
    (call,) = (await fold(api, run["id"], "tool-calls"))["data"]
    assert call["input"]["elided_bytes"] == len(large) + 2
    assert (await get_log(api, run["id"]))[call["input"]["seq"] - 1]["data"]["input"] == large
    assert (await fold(api, run["id"], "state"))["state"] == [large]


async def test_a_long_log_is_folded_within_its_bounds(api: RunningGateway) -> None:
    """The newest entries are shown, and from which event on they are complete."""
    run = await api.create_run()
    for n in range(90):
        about = {"duration_ms": 1, "output": "x" * 12_000}
        events = [("step.completed", {"step_id": f"{n}.{i}", **about}) for i in range(10)]
        accepted(await api.append(run["id"], *events))
    shown = await fold(api, run["id"], "steps")
    seqs = [step["seq"] for step in shown["data"]]
    assert seqs == list(range(shown["kept_from_seq"], shown["as_of_seq"] + 1))
    assert 300 < len(seqs) < 700
    assert (await fold(api, run["id"], "debug-bundle"))["kept_from_seq"] == shown["kept_from_seq"]


async def test_a_fold_takes_no_parameters_but_a_lists_page(api: RunningGateway) -> None:
    """One that was meant for another route is not ignored."""
    run = await api.create_run()
    for name in ("snapshot", "state", "debug-bundle"):
        refused(await api.client.get(f"/v1/runs/{run['id']}/{name}", params={"limit": 5}), 400, "bad_request")
    for params in ({"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"cursor": "-1"}, {"types": "log"}):
        refused(await api.client.get(f"/v1/runs/{run['id']}/steps", params=params), 400, "bad_request")
