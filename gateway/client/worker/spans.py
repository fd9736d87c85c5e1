"""Steps and tool calls: whatever happens within one carries its id."""

from __future__ import annotations

import time
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from gateway.client.worker.calls import awaited
from gateway.client.worker.outcome import fault_of
from gateway.client.worker.session import Place, Session

CURRENT: ContextVar[Step | None] = ContextVar("gateway_step", default=None)


def _want_async(_span: object, *_error: object) -> NoReturn:
    raise TypeError("in an async handler it is `async with run.step(…)` and `async with run.tool(…)`")


class Step:
    """A part of the work: `async with run.step("search") as step:`. `output` may be set within it."""

    def __init__(self, session: Session, name: str, input: Any) -> None:
        self.name = name
        self.output: Any = None
        self.id = session.memory.name("step")
        self.parent = CURRENT.get()
        self._session = session
        self._input = input
        self._began_s = 0.0

    if not TYPE_CHECKING:
        __enter__ = __exit__ = _want_async

    @property
    def place(self) -> Place:
        """Where an event within this step stands."""
        return Place(self.id, None if self.parent is None else self.parent.id)

    async def begin(self) -> None:
        """Record the beginning."""
        data = {"step_id": self.id, "name": self.name} | ({} if self._input is None else {"input": self._input})
        await self._session.write("step.started", data, self.place)
        self._began_s = time.perf_counter()

    async def end(self, error: BaseException | None) -> None:
        """Record the end, well or by `error`."""
        data: dict[str, Any] = {"step_id": self.id, "duration_ms": _ms_since(self._began_s)}
        if error is not None:
            await self._session.write("step.failed", {**data, "error": fault_of(error)}, self.place)
            return
        output = {} if self.output is None else {"output": self.output}
        await self._session.write("step.completed", {**data, **output}, self.place)

    async def __aenter__(self) -> Self:
        await self.begin()
        CURRENT.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        CURRENT.set(self.parent)
        await self.end(error)


class Tool:
    """A tool at work: `async with run.tool("grep", {"pattern": "x"}) as call: call.output = …`."""

    def __init__(self, session: Session, name: str, input: Any) -> None:
        self.name = name
        self.output: Any = None
        self.id = session.memory.name("call")
        self._session = session
        self._input = input
        self._place = current_place()
        self._began_s = 0.0

    if not TYPE_CHECKING:
        __enter__ = __exit__ = _want_async

    async def begin(self) -> None:
        """Record the call."""
        data = {"call_id": self.id, "name": self.name, "input": self._input}
        await self._session.write("tool.call", data, self._place)
        self._began_s = time.perf_counter()

    @awaited
    async def progress(self, progress: Any) -> None:
        """Record how far it is, in whatever shape says it."""
        await self._session.write("tool.progress", {"call_id": self.id, "progress": progress}, self._place)

    async def end(self, error: BaseException | None) -> None:
        """Record the result: `output`, or what went wrong."""
        told = self.output if error is None else fault_of(error)
        data = {
            "call_id": self.id,
            "output": told,
            "status": "ok" if error is None else "error",
            "duration_ms": _ms_since(self._began_s),
        }
        await self._session.write("tool.result", data, self._place)

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end(error)


def current_place() -> Place:
    """Return where an event stands that is recorded now."""
    step = CURRENT.get()
    return Place() if step is None else step.place


def _ms_since(began_s: float) -> float:
    return round((time.perf_counter() - began_s) * 1000, 2)
