"""What a store says when it does not do what it was asked: another moment, or another node, may."""

from __future__ import annotations

from gateway.errors import StoreUnavailable
from gateway.store.store_url import join_address

_WORDS = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
)
_REDIRECTIONS = ("MOVED ", "ASK ")


class Refused(StoreUnavailable):
    """The server answered, and did not do it; `word` is the first of its answer."""

    def __init__(self, told: str) -> None:
        super().__init__(f"The store does not take this now: {told}", outcome="not_written")
        self.word = told.partition(" ")[0]


class Redirected(StoreUnavailable):
    """Another node of a cluster has the slot, for good or, `asks`, for the keys that have moved there already.

    `address` is `host:port`, as the layout of the cluster has it; the host is empty when it is the one that answered.
    """

    def __init__(self, told: str) -> None:
        super().__init__(
            "The store is one node of a cluster: GATEWAY_REDIS_URL has to say redis+cluster://.", outcome="not_written"
        )
        word, slot, address = told.split(" ")[:3]
        # The server puts no brackets around an IPv6 address.
        host, _, port = address.rpartition(":")
        self.address = join_address(host, int(port))
        self.asks = word == "ASK"
        self.slot = int(slot)


def translate(error: Exception) -> Exception:
    """Return what a server's error means for whoever asked; a mistake of the gateway's own stays as it is."""
    told = str(error)
    if told.startswith(_WORDS):
        return Refused(told)
    return Redirected(told) if told.startswith(_REDIRECTIONS) else error
