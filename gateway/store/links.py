"""What leads to a store, by the form of its URL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.errors import StoreUnavailable
from gateway.store.cluster import ClusterLink
from gateway.store.cluster_subscription import ClusterSubscription
from gateway.store.link import Link, NodeLink
from gateway.store.store_url import Kind, read_url
from gateway.store.subscription import Subscription


def open_link(url: str, name: str, *, timeout_s: float = 5.0, patience_s: float = 1.0) -> Link:
    """Return a link to a server, or to a cluster; it connects once it runs.

    Args:
        name: By which the store knows its connections.
        timeout_s: A call older than this breaks its connection; its outcome is unknown.
        patience_s: How long a call waits for a connection before it fails, not written.
    """
    store = read_url(url)
    if store.kind is Kind.CLUSTER:
        return ClusterLink(store, name, timeout_s=timeout_s, patience_s=patience_s)
    return NodeLink(url, name, timeout_s=timeout_s, patience_s=patience_s)


@asynccontextmanager
async def linked(url: str, name: str, *, timeout_s: float) -> AsyncIterator[Link]:
    """Give a link for a few calls, each of which waits `timeout_s` for a connection.

    Raises:
        StoreUnavailable: a call failed in the block; the detail has why no connection stands, if that was it.
    """
    link = open_link(url, name, timeout_s=timeout_s, patience_s=timeout_s)
    running = asyncio.create_task(link.run())
    try:
        yield link
    except StoreUnavailable as error:
        if not link.trouble:
            raise
        raise StoreUnavailable(f"{error.detail} {link.trouble}", **error.facts) from error
    finally:
        running.cancel()
        await asyncio.wait([running])


def open_subscription(
    url: str, name: str, *, timeout_s: float, on_restored: Callable[[], None]
) -> Subscription | ClusterSubscription:
    """Return a subscription at a server, or at each node of a cluster; it connects once it runs."""
    store = read_url(url)
    if store.kind is Kind.CLUSTER:
        return ClusterSubscription(store, name, timeout_s=timeout_s, on_restored=on_restored)
    return Subscription(url, name, timeout_s=timeout_s, on_restored=on_restored)
