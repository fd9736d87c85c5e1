"""What a handler has of its run."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway.client import models
from gateway.client.files import Source
from gateway.client.worker.calls import awaited
from gateway.client.worker.session import Session
from gateway.client.worker.spans import Step, Tool, current_place

OnTimeout = Literal["fail", "cancel", "default", "keep"]


class Run:
    """A run that is being executed: its input, its log, and whoever watches it.

    Every call holds while the run is paused. Being cancelled arrives as `asyncio.CancelledError` at the next `await`;
    what clean-up then says is still recorded.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.record = session.claim.run
        """The run as it was claimed."""
        self.id = self.record.id
        self.agent_id = self.record.agent_id
        self.thread_id = self.record.thread_id
        self.input = self.record.input
        self.tags: Mapping[str, str] = self.record.tags
        self.metadata: Mapping[str, Any] = self.record.metadata
        self.file_ids: Sequence[str] = self.record.file_ids
        """Its input files; `download` and `read` fetch them."""
        self.debug_mode = self.record.debug_mode
        self.attempt = session.claim.lease.attempt
        self.traceparent = session.claim.traceparent
        """The W3C header under which spans of the work join the run's trace."""
        preset = session.claim.preset or models.Preset(name="")
        self.preset: Any = preset.config
        """The configuration of the preset that the run was created with, None without one."""
        self.preset_name = preset.name or None

    @property
    def checkpoint_state(self) -> Any:
        """What was saved last, None where nothing was.

        To read it is to go on from there: questions that were answered before it are not expected again.
        """
        return self._session.memory.go_on_from_checkpoint()

    @awaited
    async def say(self, content: str, *, message_id: str | None = None, role: str | None = None) -> None:
        """Stream a piece of a message's text."""
        await self._write("message.delta", _given(content=content, message_id=message_id, role=role))

    @awaited
    async def message(self, content: str, *, message_id: str | None = None, role: str | None = None) -> None:
        """Record a whole message; it replaces what was streamed of it."""
        await self._write("message.completed", _given(content=content, message_id=message_id, role=role))

    @awaited
    async def log(self, message: str, *, level: str = "info", data: Any = None) -> None:
        """Record a note for people."""
        await self._write("log", {"level": level, **_given(message=message, data=data)})

    @awaited
    async def usage(
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
        """Record what a model's answer cost; also where the handler only comes back to a question."""
        data = {
            "provider": provider,
            "model": model,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            **_given(cached_tokens=cached_tokens, cost_microusd=cost_microusd, credits=credits),
        }
        await self._session.write("usage.recorded", data, current_place(), again=True)

    @awaited
    async def output(self, key: str, value: Any) -> None:
        """Set a named output, before the run as a whole has one."""
        await self._write("output.set", {"key": key, "value": value})

    @awaited
    async def emit(self, type: str, data: Any = None) -> None:
        """Record an event of a type of one's own, `custom.…`.

        Raises:
            ValueError: the type is not one's own.
        """
        if not type.startswith("custom."):
            raise ValueError(f"an event of one's own is named custom.…, not {type!r}")
        await self._write(type, {} if data is None else data)

    @awaited
    async def checkpoint(self, state: Any, *, source: str = "worker") -> None:
        """Save where the work stands; returns once a later attempt can go on from it."""
        data = {"source": source, "state": state, "numbers": self._session.memory.numbers()}
        await self._write("checkpoint.created", data)
        await self._session.flush()

    @awaited
    async def upload(self, source: Source, *, name: str | None = None, content_type: str | None = None) -> models.File:
        """Send a file that the run made, and announce it in its log; returns once both are stored.

        Args:
            source: a path, bytes, an open file or what yields bytes.
            name: what it is called; a path's own name by default.
            content_type: what it is; guessed from the name by default.

        Raises:
            ApiError: it is refused: too large, or by its name.
        """
        return await self._session.upload(source, current_place(), name=name, content_type=content_type)

    @awaited
    async def download(self, file_id: str, to: str | os.PathLike[str]) -> Path:
        """Save a file as `to`, which is there whole or not at all."""
        return await self._session.files.download(file_id, to)

    def read(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """Yield a file's bytes in pieces; leave the loop early only inside `contextlib.aclosing(…)`."""
        return self._session.files.read(file_id)

    @awaited
    async def flush(self) -> None:
        """Return once everything so far is stored."""
        await self._session.flush()

    def step(self, name: str, input: Any = None) -> Step:
        """Return a part of the work: `async with run.step("search"):`. Steps may be nested."""
        return Step(self._session, name, input)

    def tool(self, name: str, input: Any = None) -> Tool:
        """Return a tool call: `async with run.tool("grep", {"pattern": "x"}) as call: call.output = …`."""
        return Tool(self._session, name, input)

    @awaited
    async def ask(
        self,
        prompt: str,
        *,
        schema: Any = None,
        timeout_s: float | None = None,
        on_timeout: OnTimeout | None = None,
        default: Any = msgspec.UNSET,
        suspend: bool = False,
    ) -> Any:
        """Ask whoever watches, and return the answer's content.

        Args:
            schema: the JSON Schema that the answer must fit.
            timeout_s: how long to wait; then `default` is the answer if there is one, else the run fails.
            on_timeout: what else happens then: `fail`, `cancel`, `default`, `keep` (wait on).
            suspend: give the run back meanwhile, so that nothing of this worker waits. After the answer the handler
                is executed again from its beginning, by whichever worker: what it asked and said is not repeated.
        """
        session = self._session
        known = session.memory.recall(prompt)
        if known is not None:
            return known.content
        request_id = session.memory.name_question(prompt)
        question = _given(prompt=prompt, schema=schema, timeout_s=timeout_s, request_id=request_id)
        if on_timeout is None and timeout_s is not None:
            on_timeout = "fail" if default is msgspec.UNSET else "default"
        question |= _given(on_timeout=on_timeout)
        question |= {} if default is msgspec.UNSET else {"default": default}
        asked_seq = await session.ask(question, current_place())
        if suspend:
            await session.suspend(request_id, asked_seq)
        return (await session.answer(request_id)).content

    async def _write(self, type: str, data: Any) -> None:
        await self._session.write(type, data, current_place())


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
