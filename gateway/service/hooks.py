"""Deciding where a run is told of: an agent's webhooks and the run's own, each with a secret."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence

import msgspec

from gateway.domain.agents import Agent
from gateway.domain.hooks import DEFAULT_EVENTS, FixedHook, Hook, check_event_pattern
from gateway.errors import BadRequest, InvalidBody
from gateway.service.outbound import UrlRules, check_url
from gateway.store.hooks import HookStore
from gateway.store.keys import digest

MOST_HOOKS = 8
SECRET_PREFIX = "whsec_"
SECRET_BYTES = (24, 64)


class HookOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as a caller asks for it; a secret that is not given is made up."""

    url: str
    events: tuple[str, ...] = DEFAULT_EVENTS
    secret: str | None = None
    id: str | None = None


class Hooks:
    """Webhooks of agents and runs, from what callers ask for."""

    def __init__(self, store: HookStore, rules: UrlRules) -> None:
        self._store = store
        self._rules = rules

    def check(self, orders: Sequence[HookOrder]) -> list[HookOrder]:
        """Return what is asked for, each with an id.

        Raises:
            InvalidBody: a URL, an event, a secret or an id cannot be; `facts["path"]` says which.
        """
        if len(orders) > MOST_HOOKS:
            raise InvalidBody(f"webhooks: at most {MOST_HOOKS} are allowed.", path="$.webhooks")
        named: dict[str, HookOrder] = {}
        for index, order in enumerate(orders):
            path = f"$.webhooks[{index}]"
            check_url(order.url, self._rules, f"{path}.url")
            _check_events(order, path)
            _check_secret(order.secret, f"{path}.secret")
            hook_id = order.id or f"wh_{digest(order.url)[:16]}"
            if hook_id in named:
                raise InvalidBody(f"{path}.id: {hook_id} is there twice; give each its own id.", path=f"{path}.id")
            named[hook_id] = msgspec.structs.replace(order, id=hook_id)
        return list(named.values())

    async def register(
        self, tenant: str, agent_id: str, orders: Sequence[HookOrder], present: Sequence[Hook]
    ) -> tuple[tuple[Hook, ...], dict[str, str]]:
        """Keep the secrets of an agent's webhooks; one that it has already keeps its secret unless another is given.

        Args:
            orders: As `check` returned them.

        Returns:
            The webhooks, and the secrets that were made up for those that are new.
        """
        hooks = tuple(Hook(id=order.id or "", url=order.url, events=order.events) for order in orders)
        given = {order.id or "": order.secret for order in orders if order.secret is not None}
        fresh = {hook.id: _new_secret() for hook in hooks if hook.id not in given}
        kept = await self._store.keep_secrets(tenant, agent_id, given, fresh) if hooks else {}
        known = {hook.id for hook in present}
        return hooks, {name: secret for name, secret in kept.items() if name in fresh and name not in known}

    async def forget(self, tenant: str, agent_id: str, present: Sequence[Hook], hooks: Sequence[Hook]) -> None:
        """Forget the secrets of webhooks that an agent has no more."""
        left = {hook.id for hook in hooks}
        await self._store.drop_secrets(tenant, agent_id, [hook.id for hook in present if hook.id not in left])

    async def fix(self, tenant: str, agent: Agent, own: Sequence[FixedHook]) -> tuple[FixedHook, ...]:
        """Return the webhooks of a new run: its own, and those of its agent as it now is that have other ids."""
        taken = {hook.id for hook in own}
        others = [hook for hook in agent.definition.webhooks if hook.id not in taken]
        kept = await self._store.secrets(tenant, agent.id, [hook.id for hook in others])
        # One without a secret has just been taken from the agent.
        fixed = [
            FixedHook(id=hook.id, url=hook.url, events=hook.events, secret=kept[hook.id], of_agent=True)
            for hook in others
            if hook.id in kept
        ]
        return (*own, *fixed)

    async def own_of(self, run_id: str) -> list[FixedHook]:
        """Return the webhooks that a run was created with, beside those of its agent."""
        return [hook for hook in await self._store.of_run(run_id) if not hook.of_agent]


def make_own(orders: Sequence[HookOrder]) -> list[FixedHook]:
    """Return the webhooks of a run that asks for its own, those without a secret with one that is made up."""
    return [
        FixedHook(
            id=order.id or "",
            url=order.url,
            events=order.events,
            secret=order.secret or _new_secret(),
            generated=order.secret is None,
        )
        for order in orders
    ]


def _check_events(order: HookOrder, path: str) -> None:
    for place, pattern in enumerate(order.events):
        where = f"{path}.events[{place}]"
        try:
            check_event_pattern(pattern)
        except (BadRequest, InvalidBody) as error:
            raise InvalidBody(f"{where}: {error.detail}", **{**error.facts, "path": where}) from None


def _check_secret(secret: str | None, path: str) -> None:
    """Refuse a secret that no library of the Standard Webhooks would take; nothing of it is repeated."""
    if secret is None:
        return
    prefixed = secret.startswith(SECRET_PREFIX)
    try:
        size = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
    except (ValueError, binascii.Error):
        size = 0
    least, most = SECRET_BYTES
    if not prefixed or not least <= size <= most:
        raise InvalidBody(f"{path}: expected whsec_ and {least} to {most} bytes in base64.", path=path)


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode("ascii")
