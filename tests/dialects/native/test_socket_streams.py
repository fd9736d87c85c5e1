"""Following runs over a WebSocket: every event once and in order, whatever is followed, resumed, cut or left unread."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.native import ask, get_log, get_run
from tests.support.running import COMPLETE, LOG, RunningGateway, wait_until
from tests.support.sockets import Frame, SocketClient, make_ticket, open_socket, seqs

pytestmark = pytest.mark.anyio

NOWHERE = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.fixture
async def socket(api: RunningGateway) -> AsyncIterator[SocketClient]:
    """A socket with every scope."""
    async with open_socket(api) as opened:
        yield opened


async def cursors_of(api: RunningGateway, run_id: str) -> list[str]:
    """Return the cursor of each of a run's events, as a socket tells them."""
    async with open_socket(api) as socket:
        await socket.do("subscribe", run_id=run_id)
        return [frame["cursor"] for frame in await socket.quiet() if frame["type"] == "event"]


async def test_a_run_is_followed_to_its_end(api: RunningGateway, socket: SocketClient) -> None:
    """A subscription is acknowledged, opened, gets the past, then what happens, and ends with the run."""
    run = await api.run_in("running")
    assert await socket.do("subscribe", run_id=run["id"]) == {"run_id": run["id"]}
    about = {"run_id": run["id"], "status": "running", "first_seq": 1, "head_seq": run["head_seq"], "after_seq": 0}
    assert await socket.next() == {"type": "stream.open", **about}
    past = await socket.quiet()
    assert seqs(past, run["id"]) == list(range(1, run["head_seq"] + 1))
    await api.append(run["id"], LOG)
    await api.append(run["id"], COMPLETE)
    live = await socket.until("stream.end")
    end = {"type": "stream.end", "run_id": run["id"], "status": "completed", "cursor": live[-2]["cursor"]}
    assert live[-1] == end
    log = await get_log(api, run["id"])
    events = [frame for frame in past + live if frame["type"] == "event"]
    assert [frame["event"] for frame in events] == log
    assert all(frame.keys() == {"type", "run_id", "cursor", "event"} for frame in events)
    assert [frame["cursor"].partition("-")[0] for frame in events] == [str(event["seq"]) for event in log]


async def test_a_run_that_has_ended_and_holds_nothing_more_ends_at_once(
    api: RunningGateway, socket: SocketClient
) -> None:
    """Who has all of an ended run is told so, and the socket stays for others."""
    run = await api.run_in("completed")
    last = (await cursors_of(api, run["id"]))[-1]
    await socket.do("subscribe", run_id=run["id"], after=last)
    assert [frame["type"] for frame in await socket.quiet()] == ["stream.open", "stream.end"]
    assert (await socket.do("unsubscribe", run_id=run["id"]))["resume_after"] is None


async def test_many_runs_share_a_socket(api: RunningGateway, socket: SocketClient) -> None:
    """Each of many runs arrives whole and in order on one socket, whatever their events' order among one another."""
    runs = [await api.run_in("running") for _ in range(6)]
    for run in runs:
        await socket.do("subscribe", run_id=run["id"])
    order = [run["id"] for run in runs for _ in range(12)]
    random.Random(7).shuffle(order)
    for run_id in order:
        await api.append(run_id, LOG)
    for run in runs:
        await api.append(run["id"], COMPLETE)
    frames: list[Frame] = []
    for _ in runs:
        frames += await socket.until("stream.end")
    for run in runs:
        assert seqs(frames, run["id"]) == list(range(1, run["head_seq"] + 14))


@pytest.mark.parametrize("how", ["after", "bare", "after_seq", "both"])
async def test_a_subscription_begins_where_it_says(api: RunningGateway, socket: SocketClient, how: str) -> None:
    """A cursor, or a number, says what the client has; the cursor wins."""
    run = await api.run_in("running")
    await api.append(run["id"], LOG, LOG, LOG)
    third = (await cursors_of(api, run["id"]))[2]
    start: dict[str, Frame] = {
        "after": {"after": third},
        "bare": {"after": "3"},
        "after_seq": {"after_seq": 3},
        "both": {"after": third, "after_seq": 1},
    }
    await socket.do("subscribe", run_id=run["id"], **start[how])
    frames = await socket.quiet()
    assert frames[0]["after_seq"] == 3
    assert seqs(frames, run["id"]) == list(range(4, run["head_seq"] + 4))


@pytest.mark.parametrize("types", ["log,run.completed", ["log", "run.completed"]])
async def test_a_filter_hides_and_never_renumbers(api: RunningGateway, socket: SocketClient, types: Any) -> None:
    """Only the wanted types come, under the seqs that they have."""
    run = await api.run_in("running")
    await socket.do("subscribe", run_id=run["id"], types=types)
    await ask(api, run["id"])
    await api.append(run["id"], COMPLETE)
    frames = await socket.until("stream.end")
    wanted = [e["seq"] for e in await get_log(api, run["id"]) if e["type"] in ("log", "run.completed")]
    assert seqs(frames, run["id"]) == wanted


async def test_a_snapshot_sums_up_the_past(api: RunningGateway, socket: SocketClient) -> None:
    """With `snapshot` the past is one frame, and events go on after it."""
    run = await api.run_in("running")
    await socket.do("subscribe", run_id=run["id"], snapshot=True)
    await api.append(run["id"], LOG)
    opened, snapshot, event = [await socket.next() for _ in range(3)]
    assert (opened["type"], opened["after_seq"]) == ("stream.open", run["head_seq"])
    assert (snapshot["type"], snapshot["as_of_seq"]) == ("stream.snapshot", run["head_seq"])
    assert snapshot["cursor"].startswith(f"{run['head_seq']}-")
    assert snapshot["state"]
    assert event["event"]["seq"] == run["head_seq"] + 1


async def test_a_cursor_that_the_log_denies_is_reset(api: RunningGateway, socket: SocketClient) -> None:
    """A cursor of another log, or ahead of this one, is told in the stream, which then begins anew."""
    run = await api.run_in("running")
    for cursor, reason in (("2-1", "log_changed"), (f"{run['head_seq']}-1", "log_changed"), ("99", "ahead_of_log")):
        await socket.do("subscribe", run_id=run["id"], after=cursor)
        frames = await socket.quiet()
        reset = {"reason": reason, "valid_through": 0, "head_seq": run["head_seq"]}
        assert frames[1] == {"type": "stream.reset", "run_id": run["id"], **reset}
        assert seqs(frames, run["id"]) == list(range(1, run["head_seq"] + 1))


async def test_a_log_that_was_trimmed_has_a_gap(api: RunningGateway, socket: SocketClient) -> None:
    """Events that are gone are named before those that are left."""
    run = await api.run_in("completed")
    assert (await api.client.post(f"/v1/runs/{run['id']}/purge", json={"through_seq": 2})).status_code == 200
    await socket.do("subscribe", run_id=run["id"])
    frames = await socket.until("stream.end")
    assert frames[1] == {"type": "stream.gap", "run_id": run["id"], "requested": 1, "first_seq": 3}
    assert seqs(frames, run["id"]) == list(range(3, run["head_seq"] + 1))


async def test_a_log_that_was_removed_cannot_be_followed(api: RunningGateway, socket: SocketClient) -> None:
    """A run whose log is gone and whose record stays is refused as over HTTP."""
    run = await api.run_in("completed")
    await api.client.post(f"/v1/runs/{run['id']}/purge", json={"keep_record": True})
    assert (await socket.refused("log_expired", "subscribe", run_id=run["id"]))["status"] == 410


async def test_unsubscribing_ends_one_run_only(api: RunningGateway, socket: SocketClient) -> None:
    """After the ack nothing more comes of that run, and the answer says where it could be resumed."""
    left, kept = await api.run_in("running"), await api.run_in("running")
    for run in (left, kept):
        await socket.do("subscribe", run_id=run["id"])
    cursor = (await cursors_of(api, left["id"]))[-1]
    await socket.quiet()
    assert await socket.do("unsubscribe", run_id=left["id"]) == {"run_id": left["id"], "resume_after": cursor}
    for run in (left, kept):
        await api.append(run["id"], LOG)
    frames = await socket.until("event", run_id=kept["id"])
    assert seqs(frames, left["id"]) == []
    assert (await socket.do("unsubscribe", run_id=NOWHERE))["resume_after"] is None


async def test_subscribing_again_begins_again(api: RunningGateway, socket: SocketClient) -> None:
    """A run is followed once: a second subscription takes the place of the first, from where it says."""
    run = await api.run_in("running")
    await socket.do("subscribe", run_id=run["id"])
    await socket.quiet()
    await socket.do("subscribe", run_id=run["id"], after_seq=run["head_seq"] - 1)
    await api.append(run["id"], LOG)
    frames = [await socket.next() for _ in range(3)]
    assert seqs(frames, run["id"]) == [run["head_seq"], run["head_seq"] + 1]


async def test_a_socket_follows_a_bounded_number_of_runs(api: RunningGateway, socket: SocketClient) -> None:
    """The sixty-fifth run is refused; one that leaves makes room, and one that is followed may be followed anew."""
    runs = await asyncio.gather(*(api.create_run() for _ in range(65)))
    for run in runs[:64]:
        await socket.do("subscribe", run_id=run["id"])
    told = await socket.refused("too_many_subscriptions", "subscribe", run_id=runs[64]["id"])
    assert told["limit_runs"] == 64
    await socket.do("subscribe", run_id=runs[0]["id"])
    await socket.do("unsubscribe", run_id=runs[0]["id"])
    await socket.do("subscribe", run_id=runs[64]["id"])


async def test_a_run_that_is_purged_leaves_the_others(api: RunningGateway, socket: SocketClient) -> None:
    """Only the run that does not exist any more is closed; what else is followed goes on."""
    gone, kept = await api.run_in("running"), await api.run_in("running")
    for run in (gone, kept):
        await socket.do("subscribe", run_id=run["id"])
    await api.append(gone["id"], COMPLETE)
    await socket.until("stream.end", run_id=gone["id"])
    await api.client.post(f"/v1/runs/{gone['id']}/purge")
    await socket.refused("not_found", "subscribe", run_id=gone["id"])
    await api.append(kept["id"], LOG)
    assert (await socket.until("event", run_id=kept["id"]))[-1]["event"]["type"]


async def test_a_ticket_that_reaches_less_closes_what_it_does_not_reach(api: RunningGateway) -> None:
    """After `auth` only what the new ticket reaches is followed; the rest says where it could be resumed."""
    kept, lost = await api.run_in("running"), await api.run_in("running")
    async with open_socket(api) as socket:
        for run in (kept, lost):
            await socket.do("subscribe", run_id=run["id"])
        await socket.quiet()
        await socket.do("auth", ticket=await make_ticket(api, runs=[kept["id"]], scopes=["runs:read"]))
        [closed] = await socket.quiet()
        assert (closed["type"], closed["run_id"], closed["reason"]) == ("stream.closed", lost["id"], "out_of_reach")
        assert closed["resume_after"] == (await cursors_of(api, lost["id"]))[-1]
        for run in (lost, kept):
            await api.append(run["id"], LOG)
        assert seqs(await socket.until("event", run_id=kept["id"]), lost["id"]) == []
        await socket.do("auth", ticket=await make_ticket(api, scopes=["runs:write"]))
        assert [f["run_id"] for f in await socket.quiet()] == [kept["id"]]


async def test_a_socket_stays_with_its_tenant(api: RunningGateway, socket: SocketClient) -> None:
    """A key of another tenant is no renewal, and the socket goes on as it was."""
    run = await api.run_in("running")
    stranger, _ = await api.gateway.access.create_key(
        tenant="stranger", name=None, principal=None, scopes=frozenset({"runs:read"}), agents=None, now_ms=0
    )
    await socket.refused("forbidden", "auth", key=stranger)
    await socket.do("subscribe", run_id=run["id"])


async def test_a_reader_that_is_cut_resumes_without_gap_or_repetition(api: RunningGateway) -> None:
    """A client that comes back with its last cursor reads exactly what was appended."""
    run = await api.create_run()
    chance = random.Random(11)

    async def write() -> None:
        for _ in range(80):
            await api.append(run["id"], *[LOG] * chance.randrange(1, 8))
        await api.append(run["id"], COMPLETE)

    writing = asyncio.create_task(write())
    read: list[int] = []
    cursor, cuts = None, 0
    while True:
        left = chance.randrange(1, 40)
        async with open_socket(api) as socket:
            await socket.do("subscribe", run_id=run["id"], **({"after": cursor} if cursor else {}))
            while (frame := await socket.next())["type"] != "stream.end" and left:
                if frame["type"] == "event":
                    read.append(frame["event"]["seq"])
                    cursor, left = frame["cursor"], left - 1
            socket.connection.transport.abort()
        cuts += 1
        if frame["type"] == "stream.end":
            break
    await writing
    assert read == [event["seq"] for event in await get_log(api, run["id"])]
    assert cuts > 5


async def test_a_reader_that_does_not_read_costs_nobody(api: RunningGateway, socket: SocketClient) -> None:
    """Who stops reading holds a bounded part of what it lacks, slows no other reader, and gets everything later."""
    run = await api.run_in("running")
    large = ("log", {"level": "info", "message": "x" * 200_000})
    async with open_socket(api, reads=False) as sleeper:
        for reader in (sleeper, socket):
            await reader.do("subscribe", run_id=run["id"])
        for _ in range(40):
            await api.append(run["id"], large)
        frames = await socket.until("event", run_id=run["id"])
        while len(seqs(frames, run["id"])) < run["head_seq"] + 40:
            frames.append(await socket.next())
        assert sum(outlet.busy for outlet in api.gateway.hub.outlets) == 1
        await api.append(run["id"], COMPLETE)
        late = await sleeper.until("stream.end")
        assert seqs(late, run["id"]) == list(range(1, run["head_seq"] + 42))


async def test_a_command_is_answered_while_a_reader_lags(api: RunningGateway) -> None:
    """An answer does not wait until a long log has been sent: it comes between two chunks of it."""
    run = await api.run_in("running")
    large = ("log", {"level": "info", "message": "x" * 200_000})
    for _ in range(40):
        await api.append(run["id"], large)
    async with open_socket(api, reads=False) as socket:
        await socket.do("subscribe", run_id=run["id"])
        assert (await socket.do("cancel", run_id=run["id"]))["status"] == "cancelling"
        before = len(seqs(list(socket._kept), run["id"]))
        assert before < 41
        frames = [await socket.next() for _ in range(10)]
        assert seqs(frames, run["id"]) == sorted(seqs(frames, run["id"]))


async def test_who_commands_without_reading_is_not_heard_further(
    api: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that are left unread hold up the next command, until the client reads or is let go."""
    monkeypatch.setattr("gateway.dialects.native.socket.UNREAD_S", 0.5)
    run = await api.create_run(input="x" * 500_000)
    async with open_socket(api, reads=False) as socket:
        for _ in range(250):
            await socket.send("pause", run_id=run["id"])
            await socket.send("resume", run_id=run["id"])
        await wait_until(lambda: not any(outlet.transport == "ws" for outlet in api.gateway.hub.outlets))
        assert (await get_run(api, run["id"]))["head_seq"] < 250
        assert await socket.closed() == (4408, "answers left unread")
