"""Keys: everything a busy gateway leaves behind has a documented name and the lifetime that it claims."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.tickets import new_ticket_id
from gateway.store import keys
from gateway.store.link import Link
from tests.support.links import connect
from tests.support.native import accepted, act, open_client
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.schedules import put_schedule
from tests.support.work import claim, put_agent, queue_run, write

ID = r"[0-7][0-9A-HJKMNP-TV-Z]{25}"
DIGEST = r"[0-9a-f]{32}"
RUN, TENANT, QUEUE = rf"gw:\{{{ID}\}}", r"gw:\{t:[\w.-]+\}", r"gw:\{q:[\w.-]+:[\w.:@+-]+\}"

# What a key may be called, its type, and how long it lives: until its time, or for the reason that is given.
PATTERNS: dict[str, tuple[str, str]] = {
    rf"{RUN}:run": ("hash", "until the run is purged or its retention ends"),
    rf"{RUN}:log": ("stream", "until the run is purged or its retention ends"),
    rf"{RUN}:writers": ("hash", "until the run is purged or its retention ends"),
    rf"{RUN}:hooks": ("hash", "until the run is purged or its retention ends"),
    rf"{RUN}:deliveries": ("list", "until the run is purged or its retention ends"),
    rf"{RUN}:idem:{DIGEST}": ("string", "expires"),
    rf"{TENANT}:idem:{DIGEST}": ("string", "expires"),
    rf"{TENANT}:gone:{ID}": ("string", "expires"),
    rf"{TENANT}:used:[\w-]{{16}}": ("string", "expires"),
    rf"{TENANT}:file:{ID}": ("string", "until the file is deleted, its run removed, or its age reached"),
    rf"{TENANT}:(files|aging|filesof:{ID})": ("zset", "an entry leaves with its file"),
    rf"{TENANT}:swept": ("string", "expires"),
    rf"{TENANT}:clock": ("string", "one a tenant"),
    rf"{TENANT}:applied": ("hash", "an entry leaves with its run"),
    rf"{TENANT}:(moving|asking|runs)": ("zset", "an entry leaves with its run"),
    rf"{TENANT}:by:(status|agent|thread|trigger|tag|batch_id|parent_run_id|root_run_id|schedule_id|depends_on):.+": (
        "zset",
        "an entry leaves with its run",
    ),
    rf"{TENANT}:feed": ("hash", "one a tenant"),
    rf"{TENANT}:feedlog": ("stream", "one a tenant, trimmed"),
    rf"{TENANT}:queuenames": ("zset", "an entry a queue"),
    rf"{TENANT}:agentids": ("zset", "an entry an agent"),
    rf"{TENANT}:(agents|agentversions)": ("hash", "an entry a version of an agent"),
    rf"{TENANT}:hooksecrets": ("hash", "an entry a webhook of an agent"),
    rf"{TENANT}:schedules": ("hash", "an entry a schedule"),
    rf"{TENANT}:scheduleids": ("zset", "an entry a schedule"),
    rf"{QUEUE}:(entries|places|holders)": ("hash", "an entry leaves with its run"),
    rf"{QUEUE}:(lanes|ready|parked|hidden|permits|offers)": ("zset", "an entry leaves with its run"),
    rf"{QUEUE}:(used|limits)": ("hash", "an entry an agent"),
    r"gw:\{timers:\d\d\}": ("zset", "an entry leaves when nothing is due any more"),
    r"gw:\{access\}:keys": ("hash", "for ever"),
    r"gw:\{access\}:secret": ("string", "for ever"),
    r"gw:\{access\}:reconciling": ("string", "expires"),
    r"gw:\{access\}:tenants": ("set", "for ever"),
}


async def be_busy(api: RunningGateway) -> None:
    """Do everything once that leaves something in the store."""
    about = {"tags": {"a": "b", "long": "x" * 200}, "batch_id": "b", "thread_id": "t", "trigger": "cron"}
    parent = await api.create_run(**about)
    body = {"agent_id": "tester", "mode": "direct", "parent_run_id": parent["id"]}
    children = [
        accepted(await api.client.post("/v1/runs", json=body, headers={"idempotency-key": f"{n}"}), 201)
        for n in (1, 2, 2)
    ]
    for run in (parent, *children[:2]):
        accepted(await api.append(run["id"], LOG, writer="w", writer_seq=1))
        accepted(await act(api, run["id"], "pause", "k"))
        accepted(await act(api, run["id"], "resume", "k"))
        question = ("run.waiting_for_input", {"prompt": "?", "timeout_s": 600, "on_timeout": "fail"})
        accepted(await api.append(run["id"], question, writer="w", writer_seq=2))
    accepted(await act(api, parent["id"], "input", "k", content=1))
    for run in (parent, children[0]):
        accepted(await api.append(run["id"], COMPLETE))
        accepted(await act(api, run["id"], "replay", f"k-{run['id']}"), 201)
    for path in ("/v1/files", f"/v1/runs/{children[1]['id']}/files"):
        headers = {"idempotency-key": "k"}
        accepted(await api.client.post(path, params={"name": "x"}, content=b"x", headers=headers), 201)
    file = accepted(await api.client.post("/v1/files?name=x", content=b"x"), 201)
    accepted(await api.client.delete(f"/v1/files/{file['file_id']}"))
    await api.gateway.file_sweep.sweep()
    accepted(await act(api, children[0]["id"], "purge", "k"))
    ticket = {"runs": [parent["id"]]}
    accepted(await api.client.post("/v1/tickets", json=ticket, headers={"idempotency-key": "k"}), 201)
    once = accepted(await api.client.post("/v1/tickets", json={"tenant": True, "single_use": True}), 201)["ticket"]
    async with httpx.AsyncClient(base_url=api.url, params={"ticket": once}) as reader:
        accepted(await reader.get(f"/v1/runs/{parent['id']}/events"))
    accepted(await api.client.post("/v1/keys", json={"scopes": ["work"]}, headers={"idempotency-key": "k"}), 201)
    stream = await api.client.get(f"/v1/runs/{parent['id']}/stream")
    assert stream.status_code == 200
    await asyncio.gather(*(api.create_run() for _ in range(10)))
    await be_busy_with_queues(api)
    await be_busy_with_webhooks(api)
    await put_schedule(api.client, "busy", cron="@yearly")
    accepted(await api.client.post("/v1/schedules/busy/trigger"), 201)
    async with open_client(api, tenant="other-tenant") as client:
        accepted(await client.post("/v1/runs", json={"agent_id": "x", "mode": "direct"}), 201)


async def be_busy_with_queues(api: RunningGateway) -> None:
    """Leave queued runs in every place that a queue has for them."""
    await put_agent(api, "busy", queue="busy", max_concurrent=1)
    first, *_ = [await queue_run(api, "busy", agent_id="busy", concurrency_key="k") for _ in range(3)]
    await queue_run(api, "later", depends_on=[{"run_id": first}])
    (claimed,) = await claim(api, "busy", most=5)
    accepted(await write(api, claimed, COMPLETE))
    await claim(api, "busy")
    reserved = await api.gateway.services.work._queues.reserve(api.tenant, "busy", 1)
    assert not reserved.run_ids


async def be_busy_with_webhooks(api: RunningGateway) -> None:
    """Have a run's webhook tried, in vain."""
    await put_agent(api, "telling", webhooks=[{"url": "https://no-such-name.invalid/", "id": "h"}])
    run = await api.create_run(agent_id="telling")
    accepted(await api.append(run["id"], COMPLETE))

    async def was_tried() -> bool:
        return bool((await api.client.get(f"/v1/runs/{run['id']}/webhook-deliveries")).json()["data"])

    await wait_until(was_tried)


async def describe(link: Link) -> dict[str, tuple[str, int]]:
    """Return every key with its type and its time to live in ms, -1 for ever."""
    names = [name.decode() for name in await link.call("KEYS", "*")]
    found = {name: ((await link.call("TYPE", name)).decode(), int(await link.call("PTTL", name))) for name in names}
    # What is under way may have ended between the two looks.
    return {name: about for name, about in found.items() if about[0] != "none"}


@pytest.mark.anyio
async def test_every_key_has_a_documented_name_and_lifetime(empty_store: RunningStore) -> None:
    """After a session that does everything once; nothing documented is missing either."""
    async with run_gateway(empty_store.url, idempotency_s=3600) as api, connect(empty_store.url) as link:
        await be_busy(api)
        found: dict[str, tuple[str, int]] = {}

        async def reconciling() -> bool:
            # The turn is kept for seconds and taken again by whoever comes next.
            found.clear()
            found.update(await describe(link))
            return keys.RECONCILING in found

        await wait_until(reconciling)
        unseen = set(PATTERNS)
        for name, (kind, left_ms) in found.items():
            matching = [pattern for pattern in PATTERNS if re.fullmatch(pattern, name)]
            assert len(matching) == 1, name
            unseen -= set(matching)
            expected, lifetime = PATTERNS[matching[0]]
            assert kind == expected, name
            assert (0 < left_ms <= 3_600_000) if lifetime == "expires" else left_ms == -1, name
        assert unseen == set(), unseen


@pytest.mark.anyio
async def test_what_a_run_leaves_goes_with_it(empty_store: RunningStore) -> None:
    """Once it is purged: no key of its own, no entry that names it, but those that expire by themselves."""
    async with run_gateway(empty_store.url) as api, connect(empty_store.url) as link:
        run = await api.create_run(tags={"a": "b"}, batch_id="b", thread_id="t")
        await api.append(run["id"], LOG, writer="w", writer_seq=1)
        await act(api, run["id"], "pause", "k")
        output = accepted(await api.client.post(f"/v1/runs/{run['id']}/files?name=x", content=b"x"), 201)
        await api.append(run["id"], COMPLETE)
        before = set(await describe(link))
        assert keys.file(api.tenant, output["file_id"]) in before
        accepted(await act(api, run["id"], "purge"))
        after = await describe(link)
        assert [name for name in after if run["id"] in name and after[name][1] == -1] == []
        assert [name for name in after if output["file_id"] in name or name.endswith((":files", ":aging"))] == []
        assert {name for name in before if ":by:" in name} & set(after) == set()
        for name, (kind, _) in after.items():
            if kind == "zset" and ":by:" in name:
                assert await link.call("ZSCORE", name, run["id"]) is None
        assert await link.call("HGET", keys.applied(api.tenant), run["id"]) is None


def test_the_documented_names_are_those_of_the_module() -> None:
    """Every function that names a key names one that is listed above."""
    run_id, tenant, digest = "01J00000000000000000000000", "t-1.x_", keys.digest("a", "b")
    names = [keys.record(run_id), keys.log(run_id), keys.writers(run_id), keys.run_idempotency(run_id, digest)]
    names += [keys.tenant_idempotency(tenant, digest), keys.tenant_clock(tenant), keys.moving(tenant)]
    names += [keys.applied(tenant), keys.asking(tenant), keys.all_runs(tenant), keys.status_index(tenant, "queued")]
    names += [keys.schedules(tenant), keys.schedule_ids(tenant)]
    names += [keys.hook_states(run_id), keys.deliveries(run_id), keys.hook_secrets(tenant)]
    names += [keys.file(tenant, run_id), keys.files(tenant), keys.files_of(tenant, run_id)]
    names += [keys.aging_files(tenant), keys.swept(tenant), keys.gone(tenant, run_id)]
    names += [keys.feed_record(tenant), keys.feed_log(tenant), keys.timers(3), keys.TENANTS, keys.API_KEYS, keys.SECRET]
    names += [keys.used_ticket(tenant, new_ticket_id())]
    for name in names:
        assert [pattern for pattern in PATTERNS if re.fullmatch(pattern, name)], name


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_digests_are_equal_only_for_equal_parts(a: list[str], b: list[str]) -> None:
    """No two requests are taken for one because their parts run together."""
    same = "\x00".join(a) == "\x00".join(b)
    assert (keys.digest(*a) == keys.digest(*b)) == same


@given(st.text(min_size=1, max_size=300))
def test_an_index_name_stays_in_its_tenants_slot(value: str) -> None:
    """Whatever a tag says: the first braces are the tenant's, and the name is short."""
    name = keys.index("tenant", "tag", value)
    assert name.startswith("gw:{t:tenant}:by:tag:")
    assert len(name) <= 21 + 64


@given(st.text(min_size=1, max_size=40))
def test_a_run_has_one_timer_partition(run_id: str) -> None:
    """Of the sixteen."""
    assert 0 <= keys.partition(run_id) < keys.PARTITIONS
