"""Operations: what a method of a path takes and answers, and who handles it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]


class Frames(msgspec.Struct, frozen=True):
    """An answer that is an SSE stream; `item` is the type of each frame's data, `named` that of frames with a name."""

    item: Any
    named: Mapping[str, Any] = {}


class Raw(msgspec.Struct, frozen=True):
    """An answer that is no JSON document."""

    media: str


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation takes and answers: the very types that its handler decodes and encodes.

    Args:
        query: A struct whose fields are the query parameters.
        body: The type of the JSON body, None where there is none.
        answers: The type of the JSON body of each status of success; `Frames` for a stream, None for no body,
            a tuple of these where it may be one or the other, or the caller chooses by `Accept`.
        refusals: Statuses of refusals beyond 401 and 403, which all may have.
        headers: Request headers that matter beyond those that all operations take.
        tells: Response headers of success that matter, and what each says.
        makes: Variables of other operations' paths, and where the answer's body has them (`{"run_id": "/id"}`).
        other_bodies: Media types of bodies that are no JSON.
        summary: What it does, where the handler's docstring does not say.
    """

    query: type[msgspec.Struct] | None = None
    body: Any = None
    answers: Mapping[int, Any] = {}
    refusals: Sequence[int] = ()
    headers: Sequence[str] = ()
    tells: Mapping[str, str] = {}
    makes: Mapping[str, str] = {}
    other_bodies: Sequence[str] = ()
    summary: str | None = None


class Operation(msgspec.Struct, frozen=True):
    """One method of one path; `path` is as Starlette spells it, longer ones before those that would take them."""

    method: str
    path: str
    handle: Handler
    about: About = About()

    @property
    def summary(self) -> str:
        """What it does, in the words of its handler's docstring."""
        if self.about.summary is not None:
            return self.about.summary
        first = (self.handle.__doc__ or "").strip().partition("\n")[0]
        return first.rpartition("`: ")[2].rstrip(".")

    def answers_of(self, status: int) -> tuple[Any, ...]:
        """Return what a status may be answered with."""
        kind = self.about.answers[status]
        return kind if isinstance(kind, tuple) else (kind,)

    @property
    def streams(self) -> list[Frames]:
        """What it may answer that is a stream."""
        kinds = (kind for status in self.about.answers for kind in self.answers_of(status))
        return [kind for kind in kinds if isinstance(kind, Frames)]

    @property
    def id(self) -> str:
        """What tells it from all others of its dialect."""
        return "_".join([self.method.lower(), *re.findall(r"[a-z0-9]+", self.path.replace("}:", "}/do/"))])

    @property
    def tag(self) -> str:
        """What it is about: the first segment of its path that says so."""
        words: list[str] = re.findall(r"[a-z]+[a-z0-9]*", self.path)
        return next(word for word in words if word not in ("v1", "api"))
