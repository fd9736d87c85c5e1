"""Routes of webhooks: those of a run, what became of each try, and telling again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer, run_id_of
from gateway.dialects.native.project import at, list_body
from gateway.dialects.native.wire import Redeliver, WebhookBody
from gateway.domain import access
from gateway.domain.hooks import DEFAULT_EVENTS, FixedHook, Hook
from gateway.domain.run import Run
from gateway.edge import query as q
from gateway.errors import InvalidBody
from gateway.service.hooks import HookOrder
from gateway.store.hooks import HookState, KeptTry


class WebhookRoutes:
    """Webhooks as resources of their run."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/runs/{run_id}/webhooks", self.find, methods=["GET"]),
            Route("/v1/runs/{run_id}/webhook-deliveries", self.tries, methods=["GET"]),
            Route("/v1/runs/{run_id}/webhooks/{hook_id}/redeliver", self.redeliver, methods=["POST"]),
        ]

    async def find(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/webhooks`: the run's webhooks, and how far each has come."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
        pairs = await self._native.webhooks.of_run(caller.grant, run_id_of(request))
        return answer(list_body([run_hook_body(*pair) for pair in pairs], None))

    async def tries(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/webhook-deliveries`: the last tries, newest first."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
        tries = await self._native.webhooks.tries(caller.grant, run_id_of(request))
        return answer(list_body([try_body(made) for made in tries], None))

    async def redeliver(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/webhooks/{hook_id}/redeliver`: tell it again of what comes after a seq."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, Redeliver)
        pair = await self._native.webhooks.redeliver(
            caller, run_id_of(request), request.path_params["hook_id"], body.after_seq
        )
        return answer(run_hook_body(*pair))


def hook_orders(bodies: Iterable[WebhookBody]) -> list[HookOrder]:
    """Return what a body asks for."""
    return [
        HookOrder(url=b.url, events=DEFAULT_EVENTS if b.events is None else tuple(b.events), secret=b.secret, id=b.id)
        for b in bodies
    ]


def require_secrets(bodies: Sequence[WebhookBody]) -> None:
    """Refuse webhooks without a secret, where the answer has no place to show one that is made up.

    Raises:
        InvalidBody: `facts["path"]` says which.
    """
    for index, body in enumerate(bodies):
        if body.secret is None:
            path = f"$.webhooks[{index}].secret"
            raise InvalidBody(f"{path}: give one; a stream has no place to show one that is made up.", path=path)


def hook_body(hook: Hook, secret: str | None = None) -> dict[str, Any]:
    """Return a webhook, with its secret only where it has just been made up."""
    body: dict[str, Any] = {"id": hook.id, "url": hook.url, "events": hook.events}
    return body if secret is None else {**body, "secret": secret}


async def made_hooks(native: Native, run: Run) -> dict[str, Any]:
    """Return what the answer to a run's creation says of its own webhooks; nothing where it has none."""
    own = await native.runs.own_hooks(run)
    told = [hook_body(hook, hook.secret if hook.generated else None) for hook in own]
    return {"webhooks": told} if told else {}


def run_hook_body(hook: FixedHook, state: HookState) -> dict[str, Any]:
    """Return a run's webhook and how far it has come."""
    return {
        **hook_body(hook),
        "of_agent": hook.of_agent,
        "state": state.state,
        "delivered_through_seq": state.cursor,
        "failed_tries": state.tries,
        "next_retry_at": at(state.due_ms or None),
    }


def try_body(made: KeptTry) -> dict[str, Any]:
    """Return one try to tell a webhook of an event."""
    return {
        "hook_id": made.hook_id,
        "message_id": made.message_id,
        "seq": made.seq,
        "type": made.type,
        "attempt": made.attempt,
        "outcome": made.outcome,
        "status": made.status,
        "error": made.error,
        "duration_ms": made.duration_ms,
        "created_at": at(made.at_ms),
        "next_retry_at": at(made.next_retry_ms),
    }
