"""`gateway doctor` and `gateway serve` at clusters, behind sentinels, over TLS, and with a user of few rights."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gateway.store.rights import rule
from tests.commands.doctor.test_doctor import examine
from tests.commands.test_serve import run
from tests.store.test_rights import USER, redis, secured, url_of
from tests.support.certificates import make_certificates
from tests.support.clusters import run_cluster
from tests.support.sentinels import run_watched

pytestmark = pytest.mark.anyio

__all__ = ["redis"]


async def find(url: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the doctor's exit status and what it found at a store, by check."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        ran = await asyncio.to_thread(examine, "--json", "--data-dir", folder, GATEWAY_REDIS_URL=url)
    findings = json.loads(ran.stdout)["findings"]
    return ran.returncode, {finding["check"]: finding for finding in findings if finding["area"] == "store"}


async def test_every_primary_of_a_cluster_is_looked_at() -> None:
    """What is good is told once, what is not of each; one node by itself is no store."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with run_cluster(Path(folder)) as cluster:
            last = cluster.primaries[2]
            await last.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            status, found = await find(cluster.url)
            alone_status, alone = await find(f"redis://{cluster.primaries[0].address}")
    assert status == 0, found
    assert found["cluster"]["said"].startswith("3 of 3 nodes; the first: ")
    assert found["persistence"]["said"].startswith("3 of 3 nodes; ")
    assert found["eviction"]["said"].startswith(f"Node {last.address}: `maxmemory-policy allkeys-lru`")
    assert alone_status == 1
    assert "one of 3 nodes of a cluster" in alone["cluster"]["said"]
    assert "redis+cluster://" in alone["cluster"]["cure"]


async def test_the_sentinels_that_are_named_are_looked_at() -> None:
    """All that answer name one primary; one that does not is warned of."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with run_watched(Path(folder)) as watched:
            primary = await watched.find_primary()
            _, found = await find(watched.url)
            watched.sentinels[1].kill()
            _, with_one_away = await find(watched.url)
    assert found["sentinels"]["said"] == f"3 sentinels name {primary}."
    assert found["replication"]["level"] != "problem"
    assert with_one_away["sentinels"]["level"] == "warning"
    assert watched.sentinels[1].address in with_one_away["sentinels"]["said"]


async def test_a_user_of_few_rights_is_told_what_to_get_and_nothing_is_served(redis: Path, tmp_path: Path) -> None:
    """The doctor names the rule that suffices; with it, there is no problem but what INFO would have told."""
    async with secured(redis) as server:
        await server.ask("ACL", "SETUSER", "weak", "on", ">pass", *rule().replace(" +xadd", "").split())
        status, found = await find(url_of(server, "weak:pass@"))
        variables = {"GATEWAY_REDIS_URL": url_of(server, "weak:pass@")}
        served, _, errors = await run(tmp_path, "serve", "--port", "0", **variables)
        good_status, good = await find(url_of(server))
    assert status == 1
    assert "may not use xadd" in found["rights"]["said"]
    assert rule() in found["rights"]["cure"]
    assert served == 1
    assert "Cannot begin with the store of GATEWAY_REDIS_URL: the store's user may not use xadd" in errors
    assert (good_status, good["rights"]["level"], good["information"]["level"]) == (0, "good", "note")


async def test_a_server_that_cannot_be_trusted_is_told(redis: Path) -> None:
    """The authority that the URL names did not sign its certificate."""
    async with secured(redis) as server:
        other = make_certificates(server.folder / "other").authority
        status, found = await find(f"rediss://{USER}{server.address}?ssl_ca_certs={other}")
    assert status == 1
    assert "certificate verify failed" in found["answers"]["said"]
