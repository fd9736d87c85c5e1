"""The way to a store that is one server: to the one that is named, or to the one that sentinels say is the primary."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from redis.exceptions import ResponseError

from gateway.store.store_url import Kind, StoreUrl, join_address, read_url
from gateway.store.wire import Wire, open_wire

MASTER: Final = b"master"


class NoPrimary(ConnectionError):
    """No sentinel that answers leads to a primary; the text has what each of them said."""


async def open_store(url: str, name: str) -> Wire:
    """Return a connection to the store; through sentinels, to what says itself that it is the primary.

    Raises:
        OSError, TimeoutError: nobody answers there.
        ResponseError: the server does not take the credentials, or the database.
    """
    store = read_url(url)
    return await open_primary(store, name) if store.kind is Kind.SENTINEL else await open_wire(url, name)


async def open_primary(store: StoreUrl, name: str) -> Wire:
    """Return a connection to the primary that the first sentinel to answer names; all are asked at once, since those
    that lie with a dead machine say nothing for long.

    Raises:
        NoPrimary: none does, or it is none any more.
    """
    said: list[str] = []
    tried: set[str] = set()
    asked = {asyncio.create_task(_hear(store, address, name)) for address in store.hosts}
    try:
        while asked:
            done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for address, told in [task.result() for task in done]:
                if isinstance(told, Exception):
                    said.append(f"{address}: {told or type(told).__name__}")
                elif told not in tried:
                    tried.add(told)
                    try:
                        return await _open_if_primary(store.node(told), name)
                    except (ResponseError, OSError, TimeoutError) as error:
                        said.append(f"{address}: {error or type(error).__name__}")
    finally:
        for task in asked:
            task.cancel()
    raise NoPrimary(f"no sentinel leads to the primary of {store.service}: {'; '.join(said)}")


async def ask_sentinels(store: StoreUrl, name: str) -> dict[str, str | None]:
    """Return the primary that each sentinel names, None where it does not answer or knows none."""
    told = await asyncio.gather(*(_hear(store, address, name) for address in store.hosts))
    return {address: None if isinstance(primary, Exception) else primary for address, primary in told}


async def _hear(store: StoreUrl, address: str, name: str) -> tuple[str, str | Exception]:
    try:
        return address, await _ask_sentinel(store, address, name)
    except (ResponseError, OSError, TimeoutError) as error:
        return address, error


async def _ask_sentinel(store: StoreUrl, address: str, name: str) -> str:
    wire = await open_wire(store.sentinel(address), name)
    try:
        found: Any = await wire.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", store.service)
    finally:
        wire.close()
    if found is None:
        raise NoPrimary(f"it knows no service {store.service}")
    return join_address(found[0].decode(), int(found[1]))


async def _open_if_primary(url: str, name: str) -> Wire:
    """A sentinel may name for a while what has been demoted, or is about to be promoted."""
    wire = await open_wire(url, name)
    try:
        role = (await wire.ask("ROLE"))[0]
    except BaseException:
        wire.close()
        raise
    if role != MASTER:
        wire.close()
        raise NoPrimary(f"it names a server whose role is {role.decode()}")
    return wire
