"""What the gateway does at a store, the least that its user has to be allowed, and whether it is."""

from __future__ import annotations

from typing import Final

from redis.exceptions import ResponseError

from gateway.errors import GatewayError
from gateway.store.link import Link
from gateway.store.scripts import CHECK_RIGHTS, Word

_KEY: Final = "gw:{doctor}:-"
_CHANNEL: Final = "gw:{doctor}:ev"

ON_KEYS: Final = (
    f"DEL {_KEY}",
    f"EVAL - 1 {_KEY}",
    f"EVALSHA - 1 {_KEY}",
    f"EXISTS {_KEY}",
    f"GET {_KEY}",
    f"HDEL {_KEY} -",
    f"HGET {_KEY} -",
    f"HGETALL {_KEY}",
    f"HINCRBY {_KEY} - 1",
    f"HLEN {_KEY}",
    f"HMGET {_KEY} -",
    f"HSET {_KEY} - -",
    f"HSETNX {_KEY} - -",
    f"HVALS {_KEY}",
    f"LPUSH {_KEY} -",
    f"LRANGE {_KEY} 0 -1",
    f"LTRIM {_KEY} 0 1",
    f"MGET {_KEY}",
    f"PEXPIRE {_KEY} 1",
    f"SADD {_KEY} -",
    f"SET {_KEY} -",
    f"SMEMBERS {_KEY}",
    f"UNLINK {_KEY}",
    f"XADD {_KEY} * - -",
    f"XRANGE {_KEY} - +",
    f"XREVRANGE {_KEY} + -",
    f"XTRIM {_KEY} MAXLEN 1",
    f"ZADD {_KEY} 0 -",
    f"ZCARD {_KEY}",
    f"ZRANGE {_KEY} 0 -1",
    f"ZREM {_KEY} -",
    f"ZSCORE {_KEY} -",
)
ON_CHANNELS: Final = (f"SPUBLISH {_CHANNEL} -", f"SSUBSCRIBE {_CHANNEL}", f"SUNSUBSCRIBE {_CHANNEL}")
ON_CONNECTIONS: Final = ("CLIENT SETNAME -", "HELLO", "PING", "SELECT 0", "TIME")
OF_CLUSTERS: Final = ("ASKING", "CLUSTER INFO", "CLUSTER SLOTS")
BEHIND_SENTINELS: Final = ("ROLE",)
EVERYWHERE: Final = (*ON_KEYS, *ON_CHANNELS, *ON_CONNECTIONS)
_TWO_WORDS: Final = frozenset({"CLIENT", "CLUSTER"})


class NoRights(GatewayError):
    """The store's user may not do what the gateway needs; the detail says what, and what to give it."""

    code = "store_rights"


class StoreTooOld(GatewayError):
    """The store is older than what the gateway needs: it lacks sharded channels and more."""

    code = "store_too_old"


def name_of(command: str) -> str:
    """Return a command as ACL rules name it."""
    words = command.lower().split()
    return "|".join(words[: 1 + (words[0].upper() in _TWO_WORDS)])


def rule(commands: tuple[str, ...] = (*EVERYWHERE, *OF_CLUSTERS, *BEHIND_SENTINELS)) -> str:
    """Return the ACL rule that allows the gateway's keys and channels, these commands, and nothing else."""
    return f"resetkeys ~gw:* resetchannels &gw:* -@all {' '.join('+' + name_of(command) for command in commands)}"


async def find_refused(link: Link) -> list[str]:
    """Return the commands that the gateway needs and the store's user may not give; nothing is written.

    Raises:
        StoreUnavailable: the store did not answer.
        StoreTooOld: it cannot even tell.
    """
    try:
        word, refused = await CHECK_RIGHTS.call(link, [], [*EVERYWHERE])
    except ResponseError as error:
        if not str(error).startswith("NOPERM"):
            raise
        return await _find_unscripted(link)
    if word is Word.OLD:
        raise StoreTooOld("the store is older than Redis 7.0; use Redis 7 or newer, or Valkey 8 or newer.")
    found = [command.decode() for command in refused]
    if set(ON_KEYS) <= set(found):
        found = [command for command in found if command not in ON_KEYS]
        return ["keys that begin with gw:", *map(name_of, found)]
    return [name_of(command) for command in found]


async def _find_unscripted(link: Link) -> list[str]:
    """Who may not run the script that asks is refused at least that."""
    refused = []
    for command in ("EVAL", "EVALSHA"):
        try:
            await link.call(command, "return 1" if command == "EVAL" else "0" * 40, 0)
        except ResponseError as error:
            if str(error).startswith("NOPERM"):
                refused.append(command.lower())
    return refused


async def check_rights(link: Link) -> None:
    """Make sure that the store's user may do all that the gateway needs.

    Raises:
        NoRights: it may not.
        StoreTooOld: no user of it could.
        StoreUnavailable: the store did not answer.
    """
    refused = await find_refused(link)
    if refused:
        raise NoRights(f"the store's user may not use {', '.join(refused)}; `gateway doctor` says what to give it.")
