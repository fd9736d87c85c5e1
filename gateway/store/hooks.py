"""Webhooks: agents' secrets, what each run fixed, how far each has been told, and the tries that were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gateway.domain.hooks import ACTIVE, FixedHook, wanted_by
from gateway.errors import InvalidBody, NotFound
from gateway.store import keys
from gateway.store.link import Argument, Link
from gateway.store.scripts import BEGIN_DELIVERY, NOTE_DELIVERY, REWIND_HOOK, Word

TRIES_KEPT = 200
"""Tries that a run's delivery log keeps, of all its webhooks."""


class HookState(msgspec.Struct, frozen=True):
    """How far a webhook of a run has come: `cursor` is the last event told or passed over.

    `tries` of the next one have failed; it is tried again at `due_ms`, 0 for at once.
    """

    cursor: int = 0
    tries: int = 0
    due_ms: int = 0
    state: str = ACTIVE


class Begun(msgspec.Struct, frozen=True):
    """The answer to whoever wants to deliver: a place to begin at, or when to ask again, None for never."""

    cursor: int | None = None
    tries: int = 0
    again_ms: int | None = None


class Noted(msgspec.Struct, frozen=True):
    """What holds after a note: whether the webhook is still the noter's, and when the next try is due, if one is."""

    held: bool
    due_ms: int | None = None


class Try(msgspec.Struct, frozen=True, omit_defaults=True):
    """One try to tell a webhook of an event; `outcome` is delivered, retrying, failed or disabled."""

    hook_id: str
    seq: int
    type: str
    message_id: str
    attempt: int
    outcome: str
    duration_ms: int
    status: int | None = None
    error: str | None = None


class KeptTry(Try, frozen=True):
    """A try in the delivery log; times in Unix ms."""

    at_ms: int = 0
    next_retry_ms: int | None = None


class Progress(msgspec.Struct, frozen=True):
    """How far a holder has come, and what becomes of its hold."""

    cursor: int
    tries: int = 0
    rest_ms: int = 0
    state: str = ACTIVE
    holds_on: bool = False


_fixed = msgspec.json.Decoder(tuple[FixedHook, ...])
_kept = msgspec.json.Decoder(KeptTry)


def hook_fields(hooks: Sequence[FixedHook]) -> dict[str, Argument]:
    """Return the fields of a new run's record that keep its webhooks."""
    if not hooks:
        return {}
    return {"hooks": msgspec.json.encode(hooks), "hooked": wanted_by(hooks)}


class HookStore:
    """Webhooks of agents and runs."""

    def __init__(self, reads: Link, writes: Link) -> None:
        self._reads = reads
        self._writes = writes

    async def secrets(self, tenant: str, agent_id: str, hook_ids: Sequence[str]) -> dict[str, str]:
        """Return the secrets of an agent's webhooks, as far as there are any."""
        if not hook_ids:
            return {}
        fields = [f"{agent_id} {hook_id}" for hook_id in hook_ids]
        found = await self._reads.call("HMGET", keys.hook_secrets(tenant), *fields)
        return {name: secret.decode() for name, secret in zip(hook_ids, found, strict=True) if secret is not None}

    async def keep_secrets(
        self, tenant: str, agent_id: str, given: Mapping[str, str], fresh: Mapping[str, str]
    ) -> dict[str, str]:
        """Keep secrets of an agent's webhooks: `given` ones in any case, `fresh` ones where there is none.

        Returns:
            The secrets that are kept now.
        """
        key = keys.hook_secrets(tenant)
        commands: list[tuple[Argument, ...]] = [("HSET", key, f"{agent_id} {name}", s) for name, s in given.items()]
        commands += [("HSETNX", key, f"{agent_id} {name}", s) for name, s in fresh.items()]
        names = [*given, *fresh]
        commands += [("HGET", key, f"{agent_id} {name}") for name in names]
        replies = await self._writes.call_many(commands)
        return {name: secret.decode() for name, secret in zip(names, replies[len(names) :], strict=True)}

    async def drop_secrets(self, tenant: str, agent_id: str, hook_ids: Sequence[str]) -> None:
        """Forget the secrets of webhooks that an agent has no more."""
        if hook_ids:
            fields = [f"{agent_id} {hook_id}" for hook_id in hook_ids]
            await self._writes.call("HDEL", keys.hook_secrets(tenant), *fields)

    async def of_run(self, run_id: str) -> tuple[FixedHook, ...]:
        """Return the webhooks that a run fixed when it was created, with their secrets."""
        found = await self._reads.call("HGET", keys.record(run_id), "hooks")
        return () if found is None else _fixed.decode(found)

    async def states(self, run_id: str, hook_ids: Sequence[str]) -> list[HookState]:
        """Return how far each webhook of a run has come."""
        found = await self._reads.call("HMGET", keys.hook_states(run_id), *hook_ids)
        return [HookState() if text is None else _state(text) for text in found]

    async def tries(self, run_id: str) -> list[KeptTry]:
        """Return the last tries of a run's webhooks, newest first."""
        return [_kept.decode(line) for line in await self._reads.call("LRANGE", keys.deliveries(run_id), 0, -1)]

    async def begin(self, run_id: str, hook_id: str, token: str, hold_ms: int) -> Begun:
        """Take a webhook of a run to deliver through it, alone for `hold_ms` or as long as notes are made."""
        word, reply = await BEGIN_DELIVERY.call(
            self._writes, [keys.record(run_id), keys.hook_states(run_id)], [hook_id, token, hold_ms, ACTIVE]
        )
        if word is Word.OK:
            return Begun(reply[0], reply[1])
        return Begun(again_ms=reply[0] if word in (Word.HELD, Word.LATER) else None)

    async def note(
        self, run_id: str, hook_id: str, token: str, progress: Progress, hold_ms: int, made: Try | None = None
    ) -> Noted:
        """Note what the holder of a webhook has done, and whether it goes on.

        Returns:
            Not held any more: it let go, or had been held for too long. Held although it let go: somebody asked
            meanwhile, and events may have come that it did not see.
        """
        line = b"" if made is None else msgspec.json.encode(made)[:-1]
        word, reply = await NOTE_DELIVERY.call(
            self._writes,
            [keys.record(run_id), keys.hook_states(run_id), keys.deliveries(run_id)],
            [
                hook_id,
                token,
                progress.cursor,
                progress.tries,
                progress.rest_ms,
                progress.state,
                "1" if progress.holds_on else "" if progress.state == ACTIVE else "0",
                hold_ms,
                line,
                TRIES_KEPT,
            ],
        )
        if word is Word.OK:
            return Noted(progress.holds_on, reply[0] or None)
        return Noted(word is Word.MORE)

    async def rewind(self, run_id: str, hook_id: str, after_seq: int) -> None:
        """Have a webhook told again of everything after a seq.

        Raises:
            InvalidBody: the log does not reach that far.
            NotFound: the run is gone.
        """
        names = [keys.record(run_id), keys.hook_states(run_id)]
        word, reply = await REWIND_HOOK.call(self._writes, names, [hook_id, after_seq, ACTIVE])
        if word is Word.SEQ:
            raise InvalidBody(f"after_seq: the log's head is {reply[0]}.", path="$.after_seq", head_seq=reply[0])
        if word is Word.MISSING:
            raise NotFound(f"There is no run {run_id}.", run_id=run_id)


async def read_run_hooks(store: HookStore, run_id: str) -> list[tuple[FixedHook, HookState]]:
    """Return a run's webhooks, each with how far it has come."""
    hooks = await store.of_run(run_id)
    if not hooks:
        return []
    return list(zip(hooks, await store.states(run_id, [hook.id for hook in hooks]), strict=True))


def _state(text: bytes) -> HookState:
    cursor, tries, due_ms, _busy, _holder, _knocked, state = text.split(b" ")
    return HookState(int(cursor), int(tries), int(due_ms), state.decode())
