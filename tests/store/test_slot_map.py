"""The layout of a cluster, as its nodes tell it."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from gateway.errors import StoreUnavailable
from gateway.store.cluster import HOME_SLOT, slot_of
from gateway.store.links import linked
from gateway.store.slots import NoLayout, SlotMap, read_layout
from gateway.store.store_url import read_url
from tests.support.clusters import find_port

pytestmark = pytest.mark.anyio

INFO = b"cluster_state:ok\r\ncluster_current_epoch:7\r\n"


def test_each_slot_has_the_address_of_its_primary() -> None:
    """A node may leave its own host unsaid, or not know another's; replicas do not count."""
    ranges = [
        [0, 1, [b"", 7000, b"id"], [b"10.0.0.9", 7009, b"replica"]],
        [2, 2, [b"fd00::2", 7001, b"id"]],
        [3, 3, [b"?", 7002, b"id"]],
        [4, 16383, [None, 7003, b"id"]],
    ]
    layout = read_layout(INFO, ranges, "10.0.0.1:7000")
    assert layout.owners[:5] == ("10.0.0.1:7000", "10.0.0.1:7000", "[fd00::2]:7001", "", "10.0.0.1:7003")
    assert (layout.works, layout.epoch) == (True, 7)
    assert not read_layout(INFO.replace(b"ok", b"fail"), [], "10.0.0.1:7000").works


def test_a_command_goes_where_its_first_key_is() -> None:
    """Scripts name their keys after their number; what has no key is asked at one place by all."""
    slot = key_slot(b"{run}")
    assert slot_of(("HGET", "gw:{run}:run", "lease")) == slot
    assert slot_of(("EVALSHA", "sha", 2, "gw:{run}:run", b"gw:{run}:log", "argument")) == slot
    assert slot_of(("SPUBLISH", b"gw:{run}:ev", "")) == slot
    assert slot_of(("TIME",)) == slot_of(("EVALSHA", "sha", 0, "argument")) == HOME_SLOT


async def test_a_cluster_that_is_away_is_told() -> None:
    """What each of the nodes said that the URL names."""
    nobody = f"127.0.0.1:{find_port()}"
    with pytest.raises(NoLayout, match="no node of the cluster answers"):
        await SlotMap(read_url(f"redis+cluster://{nobody}"), "test").refresh()
    with pytest.raises(StoreUnavailable, match="no node of the cluster answers") as refused:
        async with linked(f"redis+cluster://{nobody}", "test", timeout_s=0.3) as link:
            await link.call("PING")
    assert refused.value.facts["outcome"] == "not_written"
