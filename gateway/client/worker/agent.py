"""An agent: its name, its policy, and the function that executes its runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, cast

import msgspec

from gateway.client.work import AgentFields

Handler = Callable[..., Any]
HandlerT = TypeVar("HandlerT", bound=Handler)


class Retry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a failed attempt is tried again: how often in all, and after how many seconds; None is the gateway's word."""

    max_attempts: int | None = None
    backoff: Literal["fixed", "linear", "exponential"] | None = None
    initial_delay_s: float | None = None
    max_delay_s: float | None = None


class Agent:
    """A kind of work that this program can do.

        agent = Agent("researcher", retry=Retry(max_attempts=3))

        @agent.run
        async def research(run: Run) -> dict: ...

    An `async def` handler gets a `Run`; a plain `def` is called in a thread of its own, with a `SyncRun`.
    Given any policy, the agent is registered with it when a worker starts; without one, what is registered stays.

    Args:
        name: the `agent_id` of the runs.
        queue: where its runs wait to be claimed.
        timeout_s: how long one attempt may take.
        queue_expiry_s: how long a run may wait in the queue.
        lease_s: after so long without a sign of life a worker has lost its run.
        max_concurrent: how many runs workers hold at once, all of them together, in each queue.
        dead_letter: whether runs that fail for good are kept as dead letters.
        presets: named configurations that a run may be created with.
    """

    def __init__(
        self,
        name: str,
        *,
        queue: str | None = None,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        queue_expiry_s: float | None = None,
        lease_s: float | None = None,
        max_concurrent: int | None = None,
        dead_letter: bool | None = None,
        presets: Mapping[str, Any] | None = None,
        runtime: Literal["workflow", "conversational"] | None = None,
        title: str | None = None,
    ) -> None:
        self.name = name
        self.queue = queue
        given = {
            "queue": queue,
            "retry": None if retry is None else msgspec.to_builtins(retry),
            "run_timeout_s": timeout_s,
            "queue_expiry_s": queue_expiry_s,
            "lease_s": lease_s,
            "max_concurrent": max_concurrent,
            "dead_letter": dead_letter,
            "presets": presets,
            "runtime": runtime,
            "title": title,
        }
        policy = {field: value for field, value in given.items() if value is not None}
        self.policy: AgentFields = cast(AgentFields, policy)
        self._handler: Handler | None = None

    def run(self, handler: HandlerT) -> HandlerT:
        """Have `handler` execute this agent's runs; for use as a decorator.

        Raises:
            TypeError: it is no function of one argument, the run, that returns.
            ValueError: the agent has one already.
        """
        _check_handler(self.name, handler)
        if self._handler is not None:
            raise ValueError(f"the agent {self.name} has a handler already: {self._handler!r}")
        self._handler = handler
        return handler

    @property
    def handler(self) -> Handler:
        """What executes its runs.

        Raises:
            ValueError: nothing does.
        """
        if self._handler is None:
            raise ValueError(f"the agent {self.name} has no handler; decorate a function with @agent.run")
        return self._handler

    @property
    def is_async(self) -> bool:
        """Whether the handler runs on the event loop, and not in a thread."""
        handler = self.handler
        return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def _check_handler(name: str, handler: Handler) -> None:
    if not callable(handler):
        raise TypeError(f"the handler of the agent {name} is {type(handler).__name__!r}, no function")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise TypeError(f"the handler of the agent {name} yields; it shall return, and say what it has to with run.say")
    try:
        inspect.signature(handler).bind(None)
    except TypeError as error:
        raise TypeError(f"the handler of the agent {name} is called with one argument, the run: {error}") from None
    except ValueError:
        # A function of C, which does not tell.
        return
