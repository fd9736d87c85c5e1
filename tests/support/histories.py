"""Histories of runs: anything that callers and time can do, in any order, as the domain decides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st

from gateway.domain import appends, attempts, decisions, due, questions
from gateway.domain.draft import Draft
from gateway.domain.events import NewEvent
from gateway.domain.lifecycle import DIRECT, QUEUED, Action
from gateway.domain.retry import Policy
from gateway.domain.run import Actor, Run, RunSpec

ACTOR = Actor("key", "tester")
BEGIN_MS = 1_800_000_000_000
GRACE_MS = 10_000
RETENTION = {"log_retention_ms": 7 * 86_400_000, "record_retention_ms": 30 * 86_400_000}

Step = Callable[[Run, Draft], Any]


def make_spec(**changes: Any) -> RunSpec:
    """Return what a run was created with."""
    spec = RunSpec(
        id="01J00000000000000000000000",
        tenant="t",
        agent_id="a",
        mode="direct",
        thread_id="t",
        created_us=BEGIN_MS * 1000,
        actor=ACTOR,
    )
    return msgspec.structs.replace(spec, **changes)


def begin(spec: RunSpec) -> tuple[Run, list[tuple[NewEvent, int]]]:
    """Return a new run and its first events with their times."""
    draft = decisions.create(spec)
    run = Run(spec=spec, state=draft.state, rev=0, head_seq=0, head_tag=0, first_seq=1, updated_ms=draft.at_ms)
    return commit(run, draft), [(event, draft.at_ms) for event in draft.events]


def commit(run: Run, draft: Draft, *, by_holder: bool = False) -> Run:
    """Return the run as the store would hold it after a draft."""
    first = run.head_seq + 1
    return msgspec.structs.replace(
        run,
        state=draft.state,
        rev=run.rev + 1,
        head_seq=run.head_seq + len(draft.events),
        updated_ms=draft.at_ms,
        beat_ms=draft.at_ms if by_holder else run.beat_ms,
        holder_seq=run.head_seq + len(draft.events) if by_holder and draft.events else run.holder_seq,
        marks={**run.marks, **{mark: first + index for mark, index in draft.marks}},
    )


def append(*events: tuple[str, Any]) -> Step:
    """Return the step in which a writer appends events."""
    new = [NewEvent(kind, data) for kind, data in events]

    def step(run: Run, draft: Draft) -> None:
        ids = [f"q{run.head_seq}-{index}" for index in range(len(new))]
        appends.append(run, draft, new, ACTOR, ids)

    step.by_holder = True  # type: ignore[attr-defined]
    return step


def ask(**data: Any) -> Step:
    """Return the step in which a writer asks."""
    return append(("run.waiting_for_input", {"prompt": "?", **data}))


LOG = append(("log", {"level": "info", "message": "m"}))

STEPS: dict[str, Step] = {
    "log": LOG,
    "checkpoint": append(("checkpoint.created", {"source": "s", "state": 1})),
    "complete": append(("log", {"level": "info", "message": "m"}), ("run.completed", {"output": 1})),
    "fail": append(("run.failed", {"error": {"code": "c", "message": "m"}})),
    "confirm": append(("run.cancelled", {"reason": "r"})),
    "ask": ask(),
    "ask twice": append(("run.waiting_for_input", {"prompt": "?"}), ("run.waiting_for_input", {"prompt": "?"})),
    "ask, keep": ask(timeout_s=5, on_timeout="keep"),
    "ask, fail": ask(timeout_s=5, on_timeout="fail"),
    "ask, cancel": ask(timeout_s=5, on_timeout="cancel"),
    "ask, default": ask(timeout_s=5, on_timeout="default", default="d"),
    "answer": lambda run, draft: questions.answer(
        run, draft, draft.state.open[0].request_id if draft.state.open else None, "yes", ACTOR
    ),
    "withdraw": lambda run, draft: append(
        ("run.input_closed", {"request_id": draft.state.open[-1].request_id if draft.state.open else "none"})
    )(run, draft),
    "pause": lambda run, draft: decisions.pause(draft, ACTOR, "r"),
    "resume": lambda run, draft: decisions.resume(run, draft, ACTOR, None),
    "cancel": lambda run, draft: decisions.cancel(draft, ACTOR, None, grace_ms=GRACE_MS, force=False),
    "force": lambda run, draft: decisions.cancel(draft, ACTOR, None, grace_ms=GRACE_MS, force=True),
    "restart": lambda run, draft: decisions.restart(run, draft, ACTOR, None),
    "replay dead": lambda run, draft: decisions.restart(run, draft, ACTOR, None, action=Action.DLQ_REPLAY),
    "claim": lambda run, draft: attempts.claim(run, draft, token="t", worker="w", took_ms=1),
    "release": lambda run, draft: attempts.release(run, draft, ACTOR, None),
    "fail for good": append(("run.failed", {"error": {"code": "c", "message": "m"}, "retry": False})),
    "debug": lambda _run, draft: decisions.set_debug_mode(draft, ACTOR, not draft.state.debug_mode),
    "reschedule": lambda run, draft: decisions.reschedule(draft, ACTOR, draft.at_ms + 60_000),
    "time": due.fall_due,
}

# What may be done to a run: a step, after so many milliseconds.
HISTORIES = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from([0, 1, 900, 6_000, 70_000])), max_size=25
)
SPECS = st.builds(
    make_spec,
    mode=st.sampled_from([DIRECT, QUEUED]),
    policy=st.builds(Policy, max_attempts=st.integers(1, 3), dead_letter=st.booleans()),
    scheduled_ms=st.sampled_from([None, None, BEGIN_MS + 5_000]),
    timeout_ms=st.sampled_from([None, 60_000]),
    heartbeat_ms=st.sampled_from([None, 30_000]),
)

ACTION_OF: dict[str, Action] = {
    "pause": Action.PAUSE,
    "resume": Action.RESUME,
    "cancel": Action.CANCEL,
    "force": Action.CANCEL,
    "restart": Action.RESTART,
    "replay dead": Action.DLQ_REPLAY,
    "claim": Action.CLAIM,
    "release": Action.RELEASE,
    "reschedule": Action.RESCHEDULE,
    "answer": Action.ANSWER,
}
