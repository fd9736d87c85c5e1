"""What time asks of a run, and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from gateway.domain import attempts
from gateway.domain.decisions import answered
from gateway.domain.draft import Draft
from gateway.domain.lifecycle import PERMITTED, TERMINAL, Action, Status
from gateway.domain.run import SYSTEM, Dependency, Run

Statuses = Mapping[str, Status | None]
"""Where runs stand, by id; None for one that is gone. One that is not there was not looked at."""
NOT_LOOKED: Final[Statuses] = {}


START_LEASES: Final = 10
"""So many leases after its claim a run must have been begun, however often it was kept up."""


class Verdict(StrEnum):
    """What the runs that a run depends on say of it."""

    MET = "met"
    WAITING = "waiting"
    UNSATISFIABLE = "unsatisfiable"


def fall_due(run: Run, draft: Draft, *, listening_since_ms: int = 0, needed: Statuses = NOT_LOOKED) -> None:
    """Do everything that time asks of the run, as of `draft.at_ms`; nothing when nothing is due.

    Args:
        listening_since_ms: Since when a writer could have been heard: nobody is silent before that.
        needed: Where the runs stand that this one depends on.
    """
    now_ms, state = draft.at_ms, draft.state
    if state.status is Status.DELAYED:
        _start_due(run, draft, needed)
    elif state.status in PERMITTED[Action.EXPIRE] and _past(state.expires_ms, now_ms):
        waited = "it was not claimed in time" if run.spec.is_queued else "no append within the start timeout"
        attempts.end(draft, "run.expired", {"actor": SYSTEM, "reason": waited})
    elif state.status is Status.CANCELLING and _past(state.cancel_deadline_ms, now_ms):
        # Only the cancel is left to happen: neither a late answer nor a timeout may turn it into another end.
        attempts.end(draft, "run.cancelled", {"actor": SYSTEM, "reason": "the grace ended"})
    elif state.status in PERMITTED[Action.TIME_OUT] and _past(run_ends_ms(run), now_ms):
        _time_out(run, draft)
    elif _is_silent(run, now_ms, listening_since_ms):
        _silence(run, draft)
    elif state.status is not Status.CANCELLING:
        _questions_due(run, draft, now_ms)


def waits_for_others(run: Run) -> bool:
    """Whether the run was created to wait for other runs, and has not been told yet that they have ended."""
    state = run.state
    first_wait = state.status is Status.DELAYED and state.queued_ms is None
    return first_wait and bool(run.spec.depends_on) and not state.dependencies_met


def judge_need(run: Run, need: Dependency, needed: Statuses) -> Verdict:
    """Return what one of the runs that `run` was created to wait for says of it; what was met stays so."""
    if run.state.dependencies_met or need.run_id in run.state.met:
        return Verdict.MET
    if need.run_id not in needed:
        return Verdict.WAITING
    status = needed[need.run_id]
    # One that is gone cannot satisfy it any more.
    return Verdict.UNSATISFIABLE if status is None else _judge(need, status)


def _judge(need: Dependency, status: Status) -> Verdict:
    if status not in TERMINAL:
        return Verdict.WAITING
    if need.condition == "finished":
        return Verdict.MET
    completed = status is Status.COMPLETED
    return Verdict.MET if completed == (need.condition == "completed") else Verdict.UNSATISFIABLE


def judge_all(verdicts: Iterable[Verdict]) -> Verdict:
    """Return what several say together: one that cannot be satisfied is enough."""
    told = set(verdicts)
    return next((v for v in (Verdict.UNSATISFIABLE, Verdict.WAITING) if v in told), Verdict.MET)


def _start_due(run: Run, draft: Draft, needed: Statuses) -> None:
    verdicts = [judge_need(run, need, needed) for need in run.spec.depends_on]
    dependencies = judge_all(verdicts) if waits_for_others(run) else Verdict.MET
    if dependencies is Verdict.UNSATISFIABLE:
        error = {"code": "dependency_unsatisfiable", "message": "A run that this one depends on ended otherwise."}
        attempts.end(draft, "run.system_failed", {"actor": SYSTEM, "error": error})
    elif _past(draft.state.expires_ms, draft.at_ms):
        attempts.end(draft, "run.expired", {"actor": SYSTEM, "reason": "it could not start in time"})
    elif dependencies is Verdict.MET:
        if waits_for_others(run):
            draft.add("run.dependencies_met", {"actor": SYSTEM})
        if (draft.state.scheduled_ms or 0) <= draft.at_ms:
            attempts.queue(run.spec, draft)
    else:
        met = [
            need.run_id for need, verdict in zip(run.spec.depends_on, verdicts, strict=True) if verdict is Verdict.MET
        ]
        for run_id in dict.fromkeys(met):
            # Noted while it can be seen: the other run may be gone when the last one is met.
            if run_id not in run.state.met:
                draft.add("run.dependency_met", {"actor": SYSTEM, "run_id": run_id})


def _time_out(run: Run, draft: Draft) -> None:
    error = {"code": "run_timeout", "message": f"The run took longer than {(run.spec.timeout_ms or 0) / 1000:g} s."}
    data = {"actor": SYSTEM, "error": error}
    if run.spec.is_queued:
        attempts.fail(run, draft, attempts.TIMED_OUT, data)
    else:
        attempts.end(draft, "run.timed_out", data)


def _silence(run: Run, draft: Draft) -> None:
    if run.spec.is_queued:
        attempts.lose_lease(run, draft)
    elif draft.status is Status.CANCELLING:
        attempts.end(draft, "run.cancelled", {"actor": SYSTEM, "reason": "its holder fell silent"})
    elif draft.status in PERMITTED[Action.CRASH]:
        error = {"code": "heartbeat_lost", "message": f"No append for {(run.spec.heartbeat_ms or 0) / 1000:g} s."}
        attempts.end(draft, "run.crashed", {"actor": SYSTEM, "error": error})


def _is_silent(run: Run, now_ms: int, listening_since_ms: int) -> bool:
    return _past(_unheard_ms(run, listening_since_ms), now_ms)


def _unheard_ms(run: Run, listening_since_ms: int) -> int | None:
    """Return when the holder counts as silent: it must have had its time to be heard."""
    silence_ms, patience_ms = silent_ms(run), _patience_ms(run)
    return None if silence_ms is None or patience_ms is None else max(silence_ms, listening_since_ms + patience_ms)


def _questions_due(run: Run, draft: Draft, now_ms: int) -> None:
    for question in draft.state.open:
        if question.on_timeout == "keep" or not _past(question.deadline_ms, now_ms):
            continue
        request_id = question.request_id
        if question.on_timeout == "default":
            draft.push(answered(request_id, question.default, SYSTEM, reason="deadline"))
            continue
        draft.add("run.input_closed", {"request_id": request_id, "reason": "deadline"})
        if question.on_timeout == "cancel":
            attempts.end(draft, "run.cancelled", {"actor": SYSTEM, "reason": f"question {request_id} was not answered"})
        else:
            error = {"code": "input_timeout", "message": f"Question {request_id} was not answered in time."}
            attempts.end(draft, "run.failed", {"actor": SYSTEM, "error": error})
        return
    if draft.events:
        attempts.queue_answered(run, draft)


def next_look_ms(
    run: Run, *, log_retention_ms: int, record_retention_ms: int, listening_since_ms: int = 0
) -> int | None:
    """Return when time next asks something of the run, in Unix ms; None for never.

    Args:
        listening_since_ms: Since when a writer could have been heard, as `fall_due` takes it.
    """
    state = run.state
    unheard_ms = _unheard_ms(run, listening_since_ms)
    if state.terminal:
        ended_ms = state.ended_ms or run.updated_ms
        return ended_ms + (record_retention_ms if run.log_expired else log_retention_ms)
    if state.status is Status.CANCELLING:
        return min((t for t in (state.cancel_deadline_ms, unheard_ms) if t is not None), default=None)
    if waits_for_others(run):
        # Whoever ends the last of them has this run looked at.
        return None
    times = [state.scheduled_ms, state.expires_ms, state.cancel_deadline_ms, unheard_ms]
    times += [q.deadline_ms for q in state.open if q.on_timeout != "keep"]
    if state.held:
        times.append(run_ends_ms(run))
    return min((t for t in times if t is not None), default=None)


def run_ends_ms(run: Run) -> int | None:
    """Return when the present attempt has taken too long, in Unix ms; none passes while it stands."""
    state = run.state
    stands = not state.held or state.status is Status.PAUSED
    if run.spec.timeout_ms is None or state.attempt_started_ms is None or stands:
        return None
    return state.attempt_started_ms + run.spec.timeout_ms + state.paused_for_ms


def silent_ms(run: Run) -> int | None:
    """Return when the holder has been silent for too long, in Unix ms; None where nobody has to be heard.

    A direct run may be silent while it is paused; a lease has to be kept up all the time, and a claimed run to be
    begun: whoever only keeps it up holds it from those that would begin it.
    """
    patience_ms = _patience_ms(run)
    if patience_ms is None:
        return None
    silence_ms = _heard_ms(run) + patience_ms
    if run.state.status is not Status.DEQUEUED:
        return silence_ms
    return min(silence_ms, start_by_ms(run))


def start_by_ms(run: Run) -> int:
    """Return until when a claimed run must have been begun, in Unix ms."""
    return (run.state.claimed_ms or 0) + START_LEASES * run.spec.lease_ms


def _heard_ms(run: Run) -> int:
    """Return when the present holder last was heard, in Unix ms."""
    state = run.state
    claimed_ms, started_ms = state.claimed_ms or 0, state.attempt_started_ms or 0
    return max(run.beat_ms, claimed_ms, started_ms, state.resumed_ms or 0)


def _patience_ms(run: Run) -> int | None:
    if run.spec.is_queued:
        return run.spec.lease_ms if run.state.leased else None
    if not run.state.held or run.state.status is Status.PAUSED:
        return None
    return run.spec.heartbeat_ms


def _past(at_ms: int | None, now_ms: int) -> bool:
    return at_ms is not None and at_ms <= now_ms
