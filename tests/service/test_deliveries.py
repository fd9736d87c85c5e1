"""Telling receivers: in order, again until it is taken or given up, by one process at a time, whoever dies."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from gateway.domain.times import parse_time
from gateway.store import keys
from gateway.store.hooks import HookStore, Progress
from gateway.store.link import Link
from tests.support.choke import open_choke
from tests.support.links import connect
from tests.support.native import accepted, get_log
from tests.support.receiver import SECRET, Received, Receiver, run_receiver
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

ALLOWED = {"webhook_http": "allow", "webhook_private": "allow"}
TALK = ("custom.talk", {"said": "hello"})


@pytest.fixture
async def receiver(anyio_backend: object) -> AsyncIterator[Receiver]:
    """A receiver."""
    async with run_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway that tries again soon, twice."""
    async with run_gateway(store.url, webhook_retry_s="0.05,0.1", **ALLOWED) as running:
        yield running


@pytest.fixture(scope="module")
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection of the test's own."""
    async with connect(store.url) as link:
        yield link


def answering(*statuses: int, then: int = 204, **headers: str) -> Callable[[int, Received], Response]:
    """Answer the first requests so, and all others otherwise."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda number, _got: Response(
        status_code=statuses[number] if number < len(statuses) else then,
        headers=named if number < len(statuses) else {},
    )


async def make_run(api: RunningGateway, receiver: Receiver, *events: str) -> str:
    """Return a run that has the receiver told of some events."""
    hook = {"url": receiver.url, "secret": SECRET, "id": "h", "events": list(events)}
    run_id: str = (await api.create_run(webhooks=[hook]))["id"]
    return run_id


async def get_tries(api: RunningGateway, run_id: str) -> list[dict[str, Any]]:
    """Return the tries of a run's webhooks, oldest first."""
    data: list[dict[str, Any]] = accepted(await api.client.get(f"/v1/runs/{run_id}/webhook-deliveries"))["data"]
    return data[::-1]


async def get_hook(api: RunningGateway, run_id: str) -> dict[str, Any]:
    """Return a run's only webhook."""
    (hook,) = accepted(await api.client.get(f"/v1/runs/{run_id}/webhooks"))["data"]
    found: dict[str, Any] = hook
    return found


async def wait_tries(api: RunningGateway, run_id: str, count: int) -> list[dict[str, Any]]:
    """Wait until so many tries are in the delivery log, and return them, oldest first."""

    async def are_there() -> bool:
        return len(await get_tries(api, run_id)) >= count

    await wait_until(are_there)
    tries = await get_tries(api, run_id)
    assert len(tries) == count
    return tries


async def test_what_is_not_taken_is_tried_again_in_its_order(api: RunningGateway, receiver: Receiver) -> None:
    """Under the same id; what comes after it waits."""
    receiver.answer = answering(500, 302)
    run_id = await make_run(api, receiver, "custom.talk", "run.completed")
    accepted(await api.append(run_id, TALK, TALK, COMPLETE))
    tries = await wait_tries(api, run_id, 5)
    seqs = [event["seq"] for event in await get_log(api, run_id) if event["type"] != "run.created"][-3:]
    assert receiver.seqs == [seqs[0], seqs[0], *seqs]
    assert len({got.message_id for got in receiver.received[:3]}) == 1
    assert [(made["seq"], made["attempt"], made["outcome"], made["status"]) for made in tries] == [
        (seqs[0], 1, "retrying", 500),
        (seqs[0], 2, "retrying", 302),
        (seqs[0], 3, "delivered", 204),
        (seqs[1], 1, "delivered", 204),
        (seqs[2], 1, "delivered", 204),
    ]
    assert [made["message_id"] for made in tries] == [got.message_id for got in receiver.received]
    for made in tries:
        assert (made["next_retry_at"] is not None) == (made["outcome"] == "retrying")
        assert made["duration_ms"] >= 0
        assert made["hook_id"] == "h"
    for got in receiver.received:
        got.verify()


async def test_a_receiver_that_does_not_answer_in_time_is_tried_again(store: RunningStore, receiver: Receiver) -> None:
    """It sees the message at least once, and the same one."""
    receiver.hold.clear()
    rests = ",".join(["0.05"] * 50)
    async with run_gateway(store.url, webhook_retry_s=rests, webhook_timeout_s=0.5, **ALLOWED) as api:
        run_id = await make_run(api, receiver, "custom.talk")
        accepted(await api.append(run_id, TALK))

        async def was_tried() -> bool:
            return bool(await get_tries(api, run_id))

        await wait_until(was_tried)
        receiver.hold.set()

        async def was_taken() -> bool:
            return bool((await get_tries(api, run_id))[-1]["outcome"] == "delivered")

        await wait_until(was_taken)
        *late, taken = [(made["outcome"], made["status"], made["error"]) for made in await get_tries(api, run_id)]
    # On a busy machine more than one try may come too late.
    assert set(late) == {("retrying", None, "timeout")}
    assert taken == ("delivered", 204, None)
    assert len({got.message_id for got in receiver.received}) == 1


async def test_after_the_last_try_the_next_event_has_its_turn(api: RunningGateway, receiver: Receiver) -> None:
    """What was given up is marked, and can be told again."""
    receiver.answer = answering(500, 500, 500)
    run_id = await make_run(api, receiver, "custom.talk")
    accepted(await api.append(run_id, TALK, TALK))
    tries = await wait_tries(api, run_id, 4)
    assert [made["outcome"] for made in tries] == ["retrying", "retrying", "failed", "delivered"]
    assert [made["attempt"] for made in tries] == [1, 2, 3, 1]
    assert tries[2]["next_retry_at"] is None
    failed_seq = tries[0]["seq"]
    accepted(await api.client.post(f"/v1/runs/{run_id}/webhooks/h/redeliver", json={"after_seq": failed_seq - 1}))
    await wait_until(lambda: len(receiver.received) == 6)
    assert receiver.seqs[4:] == [failed_seq, failed_seq + 1]


async def test_a_receiver_may_ask_for_more_time(api: RunningGateway, receiver: Receiver) -> None:
    """By Retry-After; less than the usual rest it cannot ask for."""
    receiver.answer = answering(503, retry_after="600")
    run_id = await make_run(api, receiver, "custom.talk")
    accepted(await api.append(run_id, TALK))
    (made,) = await wait_tries(api, run_id, 1)
    hook = await get_hook(api, run_id)
    assert hook["next_retry_at"] == made["next_retry_at"]
    assert hook["failed_tries"] == 1
    assert 590_000 <= ms(made["next_retry_at"]) - ms(made["created_at"]) <= 610_000
    # More events do not hurry it.
    accepted(await api.append(run_id, TALK))
    await settle(api, run_id)
    assert len(receiver.received) == 1


def ms(text: str) -> int:
    """Return a time in Unix ms."""
    return parse_time(text)


async def settle(api: RunningGateway, run_id: str) -> None:
    """Look after a run's webhooks once more, whatever is due."""
    await api.gateway._timers._lookers["hook"].look(run_id)


async def test_a_receiver_that_is_gone_is_told_no_more(api: RunningGateway, receiver: Receiver) -> None:
    """Until somebody asks for it, beginning with what it did not take."""
    receiver.answer = answering(410)
    run_id = await make_run(api, receiver, "custom.talk")
    accepted(await api.append(run_id, TALK, TALK))
    (made,) = await wait_tries(api, run_id, 1)
    assert (made["outcome"], made["status"]) == ("disabled", 410)
    hook = await get_hook(api, run_id)
    assert (hook["state"], hook["delivered_through_seq"]) == ("disabled", made["seq"] - 1)
    accepted(await api.append(run_id, TALK))
    await settle(api, run_id)
    assert len(receiver.received) == 1
    path = f"/v1/runs/{run_id}/webhooks/h/redeliver"
    shown = accepted(await api.client.post(path, json={"after_seq": hook["delivered_through_seq"]}))
    assert shown["state"] == "active"
    await wait_until(lambda: len(receiver.received) == 4)


async def test_two_processes_tell_a_receiver_in_order_and_once(store: RunningStore, receiver: Receiver) -> None:
    """Whichever of them looks: one of them has the webhook at a time."""
    async with (
        run_gateway(store.url, **ALLOWED) as first,
        run_gateway(store.url, tenant=first.tenant, **ALLOWED) as second,
    ):
        run_id = await make_run(first, receiver, "*")
        for _ in range(15):
            await asyncio.gather(*(api.append(run_id, TALK) for api in (first, second)))
        accepted(await second.append(run_id, COMPLETE))
        log = await get_log(first, run_id)
        await wait_until(lambda: len(receiver.received) >= len(log))
        assert receiver.seqs == [event["seq"] for event in log]


async def test_an_event_that_comes_while_its_receiver_is_told_is_not_forgotten(
    api: RunningGateway, receiver: Receiver
) -> None:
    """Whoever tells looks once more before letting go."""
    run_id = await make_run(api, receiver, "custom.talk")
    for _ in range(30):
        count = len(receiver.received)
        accepted(await api.append(run_id, TALK))
        await wait_until(lambda: len(receiver.received) > count)  # noqa: B023 - awaited here
        # The receiver has it; whether that is noted yet is chance.
        accepted(await api.append(run_id, TALK))
        # The hold of whoever tells would run out after fifteen seconds.
        await wait_until(lambda: len(receiver.received) > count + 1, timeout_s=12)  # noqa: B023 - awaited here


async def test_a_next_try_is_not_put_off_by_events_that_come_meanwhile(
    api: RunningGateway, receiver: Receiver, link: Link
) -> None:
    """Whoever looked for them had to wait for the holder; the try comes at its own time all the same."""
    receiver.hold.clear()
    receiver.answer = answering(500)
    run_id = await make_run(api, receiver, "custom.talk")
    accepted(await api.append(run_id, TALK))
    await wait_until(lambda: receiver.received)
    accepted(await api.append(run_id, TALK))

    async def was_asked_for() -> bool:
        state = await link.call("HGET", keys.hook_states(run_id), "h")
        return bool(state.split(b" ")[5] == b"1")

    await wait_until(was_asked_for)
    receiver.hold.set()
    # The hold of whoever tells would have run out after fifteen seconds.
    await wait_until(lambda: len(receiver.received) == 3, timeout_s=12)


async def test_a_holder_that_died_is_followed_by_another(api: RunningGateway, receiver: Receiver, link: Link) -> None:
    """Once its hold has run out; its late note is refused."""
    hooks = HookStore(link, link)
    run_id = await make_run(api, receiver, "custom.talk")
    accepted(await api.append(run_id, LOG))
    await settle(api, run_id)
    dead = await hooks.begin(run_id, "h", "dead", 3_000)
    assert dead.cursor is not None
    accepted(await api.append(run_id, TALK))
    assert receiver.received == []
    await wait_until(lambda: receiver.received)
    assert (await hooks.note(run_id, "h", "dead", Progress(0), 1_000)).held is False
    assert (await get_hook(api, run_id))["delivered_through_seq"] > 0


async def test_a_slow_receiver_does_not_hold_up_others(empty_store: RunningStore, receiver: Receiver) -> None:
    """Of the same run, nor of any other; a host has only so many at once of one process."""
    async with run_receiver() as slow, run_gateway(empty_store.url, webhook_timeout_s=60, **ALLOWED) as api:
        slow.hold.clear()
        hooks = [
            {"url": slow.url.replace("127.0.0.1", "localhost"), "secret": SECRET, "events": ["custom.talk"]},
            {"url": receiver.url, "secret": SECRET, "events": ["custom.talk"]},
        ]
        runs = [await api.create_run(webhooks=hooks) for _ in range(12)]
        for run in runs:
            accepted(await api.append(run["id"], TALK))
        await wait_until(lambda: len(receiver.received) == 12, timeout_s=30)
        assert len(slow.received) == 8
        slow.hold.set()
        await wait_until(lambda: len(slow.received) == 12)


async def test_a_private_address_is_refused_when_it_comes_to_it(store: RunningStore, receiver: Receiver) -> None:
    """Although the webhook was taken: by a process that allowed it, or under a name that led elsewhere then."""
    async with run_gateway(store.url, **ALLOWED) as api:
        run_id = await make_run(api, receiver, "custom.talk")
        tenant = api.tenant
    async with run_gateway(store.url, tenant=tenant, webhook_http="allow") as api:
        accepted(await api.append(run_id, TALK))
        (made,) = await wait_tries(api, run_id, 1)
        assert (made["outcome"], made["status"], made["error"]) == ("retrying", None, "address_refused")
    assert receiver.received == []


async def test_a_long_log_is_passed_over_to_what_is_wanted(api: RunningGateway, receiver: Receiver) -> None:
    """In pages; nothing but what is wanted is told."""
    run_id = await make_run(api, receiver, "run.completed")
    for _ in range(3):
        accepted(await api.append(run_id, *([LOG] * 500)))
    accepted(await api.append(run_id, COMPLETE))
    await wait_until(lambda: receiver.received)
    assert receiver.types == ["run.completed"]


async def test_what_was_removed_from_the_log_is_passed_over(api: RunningGateway, receiver: Receiver) -> None:
    """It cannot be told any more; what comes later is."""
    receiver.answer = answering(410)
    run_id = await make_run(api, receiver, "run.completed")
    accepted(await api.append(run_id, COMPLETE))
    await wait_tries(api, run_id, 1)
    accepted(await api.client.post(f"/v1/runs/{run_id}/purge", json={"keep_record": True}))
    accepted(await api.client.post(f"/v1/runs/{run_id}/webhooks/h/redeliver", json={}))
    await settle(api, run_id)
    accepted(await api.client.post(f"/v1/runs/{run_id}/restart"))
    accepted(await api.append(run_id, COMPLETE, attempt=2))
    await wait_until(lambda: len(receiver.received) == 2)


@pytest.mark.parametrize("executed", [False, True], ids=["lost", "answer lost"])
async def test_an_end_that_was_written_is_told_whatever_was_cut(
    store: RunningStore, receiver: Receiver, executed: bool
) -> None:
    """At whatever step the store was lost, and although nobody repeats the append."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with (
            open_choke(store.url, Path(folder)) as choke,
            run_gateway(choke.url, **ALLOWED) as api,
            run_gateway(store.url, tenant=api.tenant, **ALLOWED) as witness,
        ):
            ended, cut, step = [], True, 0
            while cut:
                run_id = await make_run(witness, receiver, "run.completed")
                accepted(await witness.append(run_id, LOG))
                await wait_until(lambda: api.gateway.why_not_ready() == [])
                choke.arm(step, executed=executed, counts=lambda command: any(run_id.encode() in w for w in command))  # noqa: B023 - armed for this run
                await api.append(run_id, COMPLETE)
                cut, step = choke.sprung, step + 1
                choke.disarm()
                if accepted(await witness.client.get(f"/v1/runs/{run_id}"))["status"] == "completed":
                    ended.append(run_id)
            assert step > 5

            def told() -> set[str]:
                return {got.content["data"]["run"]["id"] for got in receiver.received}

            await wait_until(lambda: told() == set(ended), timeout_s=30)


async def test_with_a_run_goes_what_its_webhooks_left(api: RunningGateway, receiver: Receiver, link: Link) -> None:
    """State, tries and timer."""
    run_id = await make_run(api, receiver, "run.completed")
    accepted(await api.append(run_id, COMPLETE))
    await wait_tries(api, run_id, 1)
    names = [keys.hook_states(run_id), keys.deliveries(run_id)]
    assert await link.call("EXISTS", *names) == 2
    accepted(await api.client.post(f"/v1/runs/{run_id}/purge"))
    assert await link.call("EXISTS", *names) == 0
    member = keys.hook_timer(run_id)

    async def is_away() -> bool:
        return await link.call("ZSCORE", keys.timers(keys.partition(member)), member) is None

    await wait_until(is_away, timeout_s=20)


async def test_the_delivery_log_is_bounded(api: RunningGateway, receiver: Receiver) -> None:
    """The newest tries of a run stay."""
    run_id = await make_run(api, receiver, "custom.talk")
    accepted(await api.append(run_id, *([TALK] * 230)))
    await wait_until(lambda: len(receiver.received) == 230)

    async def is_noted() -> bool:
        return bool((await get_tries(api, run_id))[-1]["seq"] == receiver.seqs[-1])

    await wait_until(is_noted)
    tries = await get_tries(api, run_id)
    assert [made["seq"] for made in tries] == receiver.seqs[-200:]
