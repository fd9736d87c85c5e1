"""Handlers that block: a thread for each, and a run whose calls wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

import msgspec

from gateway.client.files import Source
from gateway.client.models import File
from gateway.client.worker.run import OnTimeout, Run
from gateway.client.worker.session import Session
from gateway.client.worker.spans import CURRENT, Step, Tool

T = TypeVar("T")
SpanT = TypeVar("SpanT", Step, Tool)


async def run_in_thread(function: Callable[[], T], session: Session) -> T:
    """Return what `function` does in a thread of its own.

    A thread cannot be cancelled: it hears of it at its next call of the run, and is waited for until the session is
    over.
    """
    future = _start_thread(function)
    while True:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.done() or session.is_over:
                raise


def _start_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        elif isinstance(error, asyncio.CancelledError):
            future.cancel()
        elif isinstance(error, StopIteration):
            # A future cannot raise it; as in a coroutine it is an error of another kind.
            wrapped = RuntimeError("The handler raised StopIteration.")
            wrapped.__cause__ = error
            future.set_exception(wrapped)
        else:
            future.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = context.run(function)
        except BaseException as raised:
            error = raised
        # Nobody waits for a thread that outlived its loop.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="gateway-run", daemon=True).start()
    return future


class SyncRun:
    """A `Run` for a handler that is a plain function: its calls wait until they are done.

    A cancelled run makes the call under way, or else the next one, raise `asyncio.CancelledError`, once; what
    clean-up then says is still recorded. It may be used by several threads.
    """

    def __init__(self, run: Run, session: Session) -> None:
        self._run = run
        self._session = session
        self._loop = asyncio.get_running_loop()
        self.record = run.record
        self.id = run.id
        self.agent_id = run.agent_id
        self.thread_id = run.thread_id
        self.input = run.input
        self.tags = run.tags
        self.metadata = run.metadata
        self.file_ids = run.file_ids
        self.debug_mode = run.debug_mode
        self.attempt = run.attempt
        self.traceparent = run.traceparent
        self.preset = run.preset
        self.preset_name = run.preset_name

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` does on the worker's event loop."""
        try:
            future = asyncio.run_coroutine_threadsafe(self._session.call(work), self._loop)
        except RuntimeError:
            # The loop has ended, and with it all that this thread could do.
            work.close()
            raise asyncio.CancelledError from None
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError from None

    @property
    def checkpoint_state(self) -> Any:
        """What was saved last; see `Run.checkpoint_state`."""
        return self._run.checkpoint_state

    def say(self, content: str, *, message_id: str | None = None, role: str | None = None) -> None:
        """Stream a piece of a message's text."""
        self.wait(self._run.say(content, message_id=message_id, role=role))

    def message(self, content: str, *, message_id: str | None = None, role: str | None = None) -> None:
        """Record a whole message; it replaces what was streamed of it."""
        self.wait(self._run.message(content, message_id=message_id, role=role))

    def log(self, message: str, *, level: str = "info", data: Any = None) -> None:
        """Record a note for people."""
        self.wait(self._run.log(message, level=level, data=data))

    def usage(
        self,
        provider: str,
        model: str,
        *,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        cached_tokens: int | None = None,
        cost_microusd: int | None = None,
        credits: float | None = None,
    ) -> None:
        """Record what a model's answer cost; see `Run.usage`."""
        used = self._run.usage(
            provider,
            model,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cached_tokens=cached_tokens,
            cost_microusd=cost_microusd,
            credits=credits,
        )
        self.wait(used)

    def output(self, key: str, value: Any) -> None:
        """Set a named output, before the run as a whole has one."""
        self.wait(self._run.output(key, value))

    def emit(self, type: str, data: Any = None) -> None:
        """Record an event of a type of one's own, `custom.…`."""
        self.wait(self._run.emit(type, data))

    def checkpoint(self, state: Any, *, source: str = "worker") -> None:
        """Save where the work stands; returns once a later attempt can go on from it."""
        self.wait(self._run.checkpoint(state, source=source))

    def upload(self, source: Source, *, name: str | None = None, content_type: str | None = None) -> File:
        """Send a file that the run made, and announce it in its log; see `Run.upload`."""
        return self.wait(self._run.upload(source, name=name, content_type=content_type))

    def download(self, file_id: str, to: str | os.PathLike[str]) -> Path:
        """Save a file as `to`, which is there whole or not at all."""
        return self.wait(self._run.download(file_id, to))

    def flush(self) -> None:
        """Return once everything so far is stored."""
        self.wait(self._run.flush())

    def step(self, name: str, input: Any = None) -> SyncStep:
        """Return a part of the work: `with run.step("search"):`."""
        return SyncStep(self, self._run.step(name, input))

    def tool(self, name: str, input: Any = None) -> SyncTool:
        """Return a tool call: `with run.tool("grep", {"pattern": "x"}) as call: call.output = …`."""
        return SyncTool(self, self._run.tool(name, input))

    def ask(
        self,
        prompt: str,
        *,
        schema: Any = None,
        timeout_s: float | None = None,
        on_timeout: OnTimeout | None = None,
        default: Any = msgspec.UNSET,
        suspend: bool = False,
    ) -> Any:
        """Ask whoever watches, and return the answer's content; see `Run.ask`."""
        question = self._run.ask(
            prompt, schema=schema, timeout_s=timeout_s, on_timeout=on_timeout, default=default, suspend=suspend
        )
        return self.wait(question)


def _want_sync(_span: object, *_error: object) -> NoReturn:
    raise TypeError("in a plain function it is `with run.step(…)` and `with run.tool(…)`")


class _SyncSpan(Generic[SpanT]):
    """A step or a tool call in a thread."""

    if not TYPE_CHECKING:
        __aenter__ = __aexit__ = _want_sync

    def __init__(self, run: SyncRun, span: SpanT) -> None:
        self._run = run
        self._span: SpanT = span
        self.id = span.id

    @property
    def output(self) -> Any:
        """What it led to."""
        return self._span.output

    @output.setter
    def output(self, value: Any) -> None:
        self._span.output = value

    def __enter__(self) -> Self:
        self._run.wait(self._span.begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.wait(self._span.end(error))


class SyncStep(_SyncSpan[Step]):
    """A `Step` in a thread."""

    def __enter__(self) -> Self:
        super().__enter__()
        CURRENT.set(self._span)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        CURRENT.set(self._span.parent)
        super().__exit__(kind, error, trace)


class SyncTool(_SyncSpan[Tool]):
    """A `Tool` in a thread."""

    def progress(self, progress: Any) -> None:
        """Record how far it is."""
        self._run.wait(self._span.progress(progress))
