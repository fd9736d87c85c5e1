"""The run in the processes API's words, and its refusals."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from gateway.dialects.processes.wire import CreateRun, Fault, ListQuery, Named, Output, Refusal, Stage, Word
from gateway.dialects.processes.wire import Run as ProcessRun
from gateway.domain.lifecycle import QUEUED, Status
from gateway.domain.run import Run, RunSpec
from gateway.domain.times import format_time
from gateway.entry.statuses import StatusWords
from gateway.errors import BadRequest, InvalidBody
from gateway.service.listing import Filters
from gateway.service.runs import NewRun
from gateway.store.indexes import Position
from gateway.store.keys import digest

WORDS = StatusWords(
    {
        Status.DELAYED: "Created",
        Status.QUEUED: "Created",
        Status.DEQUEUED: "Created",
        Status.RUNNING: "Running",
        Status.WAITING: "WaitingForInput",
        Status.PAUSED: "Paused",
        Status.CANCELLING: "Cancelled",
        Status.COMPLETED: "Completed",
        Status.FAILED: "Failed",
        Status.CANCELLED: "Cancelled",
        Status.TIMED_OUT: "Failed",
        Status.CRASHED: "Failed",
        Status.SYSTEM_FAILED: "Failed",
        Status.EXPIRED: "Failed",
        Status.DEAD_LETTER: "Failed",
    }
)

NAME = "processes"
PROCESS_TAG = "processes.process_id"
"""The tag of a run that names its process: lists find the runs of a process by it."""

OUTPUT_NAME = "output"
NAME_CHARS = 100
TOKEN_CHARS = 256

_PLACE = re.compile(r"([0-9]{1,16})-([0-7][0-9A-HJKMNP-TV-Z]{25})-([0-9a-f]+)")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")


class Extension(msgspec.Struct, frozen=True):
    """What of a run only this API knows."""

    stage: Stage = "Published"


def new_run(body: CreateRun) -> NewRun:
    """Return the run that a body asks for: queued, its inputs one object.

    Raises:
        InvalidBody: two inputs have the same name.
    """
    return NewRun(
        agent_id=body.agent_id,
        mode=QUEUED,
        title=body.name,
        input=None if body.inputs is None else _object(body.inputs),
        file_ids=tuple(file_id.upper() for file_id in body.file_ids or ()),
        tags={PROCESS_TAG: body.process_id},
        extensions={NAME: {"stage": body.stage}},
    )


def _object(inputs: Sequence[Named]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for index, given in enumerate(inputs):
        if given.name in values:
            raise InvalidBody(f"There are two inputs named {given.name!r}.", path=f"$.inputs[{index}].name")
        values[given.name] = given.value
    return values


def process_of(spec: RunSpec) -> str:
    """Return the process that the run was given, else its agent."""
    return spec.tags.get(PROCESS_TAG) or spec.agent_id


def stage_of(spec: RunSpec) -> Stage:
    """Return the stage that the run was given, else Published."""
    try:
        return msgspec.convert(spec.extensions.get(NAME, {}), Extension).stage
    except msgspec.ValidationError:
        # Another API lets anything be written there.
        return "Published"


def filters_of(query: ListQuery) -> Filters:
    """Return what proposes the runs of a query; `belongs` says which of them are."""
    if query.process_id == query.agent_id:
        # Among them are those that were given no process.
        return Filters(agent_id=query.agent_id)
    return Filters(agent_id=query.agent_id, tags={PROCESS_TAG: query.process_id})


def belongs(query: ListQuery, run: Run) -> bool:
    """Return whether a run of the query's agent is one of its process and stage."""
    return process_of(run.spec) == query.process_id and query.stage in (None, stage_of(run.spec))


def show(run: Run, named: Mapping[str, Any]) -> ProcessRun:
    """Return the run.

    Args:
        named: Its named outputs, as its log has them.
    """
    spec = run.spec
    return ProcessRun(
        id=spec.id,
        agent_id=spec.agent_id,
        process_id=process_of(spec),
        name=(spec.title or spec.id)[:NAME_CHARS],
        stage=stage_of(spec),
        status=cast(Word, WORDS.of(run.status)),
        created_at=format_time(spec.created_us // 1000)[:19],
        file_ids=list(spec.file_ids) or None,
        outputs=_outputs(run.state.output, named),
    )


def _outputs(output: Any, named: Mapping[str, Any]) -> list[Output] | None:
    """Return the named outputs, else what the run completed with, by name; None while there is neither."""
    if not named:
        if output is None:
            return None
        named = output if isinstance(output, dict) else {OUTPUT_NAME: output}
    return [Output(name, value) for name, value in named.items()]


def write_token(query: ListQuery, place: Position | None) -> str | None:
    """Return where the next page of this query begins, as text; None at the end."""
    if place is None:
        return None
    text = f"{place.created_us}-{place.run_id}-{_digest(query)}"
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read_token(query: ListQuery) -> Position | None:
    """Return where a page of this query begins, None for the beginning.

    Raises:
        BadRequest: the token was not given out for this query.
    """
    token = query.continuation_token
    if token is None:
        return None
    try:
        text = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4)).decode("ascii")
    except ValueError:
        text = ""
    match = _PLACE.fullmatch(text) if len(token) <= TOKEN_CHARS else None
    if match is None or match[3] != _digest(query):
        raise BadRequest("This is no continuation_token of this query.", parameter="continuation_token")
    return Position(int(match[1]), match[2])


def _digest(query: ListQuery) -> str:
    return digest(query.process_id, query.agent_id, query.stage or "")[:16]


def tell(problem: Mapping[str, Any]) -> tuple[int, Refusal]:
    """Word a problem document as this API does: what is wrong with a parameter or member is 422 and says where."""
    detail, path, parameter = problem["detail"], problem.get("path"), problem.get("parameter")
    if problem["code"] in ("bad_request", "invalid_body"):
        if isinstance(parameter, str):
            return 422, Refusal([_fault(detail, ["query", parameter])])
        if isinstance(path, str) and path.startswith("$"):
            message = detail.removesuffix(f", at {path}.")
            return 422, Refusal([_fault(message, ["body", *_steps(path, message)])])
    return problem["status"], Refusal(detail)


def _fault(message: str, loc: list[str | int]) -> Fault:
    missing = _MISSING.fullmatch(message) or message.endswith(" is required.")
    return Fault("missing" if missing else "value_error", loc, message)


def _steps(path: str, message: str) -> list[str | int]:
    """Return a path such as `$.inputs[2].name` as steps, the missing member that the message names included."""
    steps: list[str | int] = [int(s) if s.isdecimal() else s for s in re.findall(r"[^.\[\]$]+", path)]
    missing = _MISSING.fullmatch(message)
    return [*steps, missing[1]] if missing else steps
