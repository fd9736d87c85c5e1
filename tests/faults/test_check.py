"""The checker finds what is broken in a history, and nothing in one that is whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.faults.check import Broken, check
from tests.faults.history import Append, History, Reading, longest_pause
from tests.support.transcripts import Seen, Told
from tests.support.writers import Outcome

LOG = [(1, "run.created"), (2, "a-1"), (3, "a-2"), (4, "b-1"), (5, "a-3"), (6, "run.completed")]


def seen(seq: int, mark: str | None = None, *, tag: int = 7) -> Seen:
    """Return an event as the log has it, unless it is another."""
    return Seen(seq, f"{seq}-{tag}", mark or dict(LOG)[seq])


def reset(valid_through: int) -> Told:
    """Return the frame that voids what is beyond."""
    return Told("stream.reset", {"reason": "rolled_back", "valid_through": valid_through, "head_seq": valid_through})


def append(writer: str, number: int, marks: str, seq: int | None, **more: Any) -> Append:
    """Return an append that was acknowledged at `seq`, unless it was not."""
    outcome = Outcome.REFUSED if seq is None else Outcome.ACKNOWLEDGED
    values = {"outcome": outcome, "first_seq": seq, **more}
    return Append(writer=writer, number=number, marks=tuple(marks.split()), **values)


WHOLE = History(
    appends=[append("a", 1, "a-1 a-2", 2), append("b", 1, "b-1", 4), append("a", 2, "a-3", 5)],
    readings=[Reading(reader="r", heard=[seen(seq) for seq, _ in LOG])],
    log=LOG,
)


def found(**changes: Any) -> list[Broken]:
    """Return what is found in a whole history in which something was changed, once each."""
    verdict = check(msgspec.structs.replace(WHOLE, **changes))
    return list(dict.fromkeys(finding.broken for finding in verdict.findings))


def read(*items: Seen | Told, ended: bool = True) -> list[Reading]:
    """Return the whole reading and another one."""
    return [*WHOLE.readings, Reading(reader="x", heard=list(items), ended=ended)]


def test_a_whole_history_is_found_whole() -> None:
    """Nothing is found where nothing is broken, also with appends of which nobody knows what became of them."""
    assert found() == []
    lost = append("c", 1, "c-1 c-2", None, outcome=Outcome.UNKNOWN)
    refused = append("c", 2, "c-3", None, code="invalid_state")
    assert found(appends=[*WHOLE.appends, lost, refused]) == []


@pytest.mark.parametrize(
    ("log", "broken"),
    [
        ([(1, "run.created"), (3, "a-1")], [Broken.HOLE, Broken.LOST, Broken.TORN]),
        ([*LOG[:5], (6, "a-3"), (7, "run.completed")], [Broken.TWICE]),
        ([*LOG[:5], (6, "z-1"), (7, "run.completed")], [Broken.STRANGER]),
        ([LOG[0], (2, "b-1"), *LOG[2:]], [Broken.TWICE, Broken.TORN, Broken.LOST]),
        ([LOG[0], (2, "a-2"), (3, "a-1"), *LOG[3:]], [Broken.LOST, Broken.OUT_OF_ORDER]),
        (LOG[:4], [Broken.LOST]),
    ],
    ids=["hole", "twice", "stranger", "replaced", "swapped", "short"],
)
def test_a_broken_log_is_found(log: list[tuple[int, str]], broken: list[Broken]) -> None:
    """A hole, a repeat, an event that nobody wrote, a wrong place, a wrong order and a lost tail are each found."""
    kinds = found(log=log, readings=[])
    assert set(broken) <= set(kinds), kinds


def test_what_nobody_knows_of_may_be_stored_late() -> None:
    """An append that its writer let go of may stand after later ones; one that was acknowledged may not."""
    log = [(1, "run.created"), (2, "a-2"), (3, "a-1"), (4, "run.completed")]
    late, next_one = append("a", 1, "a-1", None, outcome=Outcome.UNKNOWN), append("a", 2, "a-2", 2)
    assert found(log=log, appends=[late, next_one], readings=[]) == []
    assert found(log=log, appends=[append("a", 1, "a-1", 3), next_one], readings=[]) == [Broken.OUT_OF_ORDER]


def test_what_was_refused_must_not_stand_in_the_log() -> None:
    """An append that was said to be refused or not written, and stands there, is found."""
    for outcome in (Outcome.REFUSED, Outcome.NOT_WRITTEN):
        appends = [*WHOLE.appends[:2], append("a", 2, "a-3", None, outcome=outcome)]
        assert found(appends=appends) == [Broken.REFUSED_STANDS]


def test_an_append_stands_whole_or_not_at_all() -> None:
    """Half of a batch in the log is found, even where nothing was known of the batch."""
    torn = append("a", 2, "a-3 a-4", None, outcome=Outcome.UNKNOWN)
    assert found(appends=[*WHOLE.appends[:2], torn]) == [Broken.TORN]


def test_an_error_of_the_gateway_is_found() -> None:
    """An append that was answered with 500 is a finding whatever became of it."""
    assert found(appends=[*WHOLE.appends, append("c", 1, "c-1", None, code="internal")]) == [Broken.FAULTY_ANSWER]


@pytest.mark.parametrize(
    ("heard", "broken"),
    [
        ([seen(1), seen(2), seen(4)], [Broken.SKIPPED, Broken.UNFINISHED]),
        ([*(seen(seq) for seq in (1, 2, 3, 3, 4, 5, 6))], [Broken.REPEATED]),
        ([seen(1), seen(2), seen(3, "lie"), seen(4), seen(5), seen(6)], [Broken.MISLED, Broken.TWO_CURSORS]),
        ([seen(seq) for seq in range(1, 6)], [Broken.UNFINISHED]),
        ([*(seen(seq) for seq in range(1, 7)), Told("stream.gap", {"first_seq": 3})], [Broken.FALSE_ALARM]),
        ([seen(1), seen(2), reset(1), *(seen(seq) for seq in range(2, 7))], [Broken.FALSE_ALARM]),
        ([seen(seq, tag=8) for seq in range(1, 7)], [Broken.TWO_CURSORS]),
    ],
    ids=["skipped", "repeated", "misled", "short", "gap", "reset", "cursors"],
)
def test_a_broken_reading_is_found(heard: list[Seen | Told], broken: list[Broken]) -> None:
    """What a reader was given in error, lacks, or was told without cause, is each found."""
    assert found(readings=read(*heard)) == broken


def test_a_reader_must_be_told_of_the_end() -> None:
    """A reader that has everything and was not told that this is all is found."""
    assert found(readings=read(*(seen(seq) for seq, _ in LOG), ended=False)) == [Broken.UNFINISHED]


LOST = seen(4, "a-9", tag=3), seen(5, "a-10", tag=4)


def lossy(*heard: Seen | Told, appends: list[Append] | None = None) -> list[Broken]:
    """Return what is found when the store forgot events 4 and 5, and a reader of them was given this."""
    return found(lossy=True, readings=read(*heard), appends=appends or WHOLE.appends)


def test_a_loss_that_readers_are_told_of_is_no_finding() -> None:
    """A reader that had what was lost, was told so, and got what stands there now, holds the log."""
    after = [seen(seq) for seq in range(4, 7)]
    assert lossy(*(seen(seq) for seq in range(1, 4)), *LOST, reset(3), *after) == []
    assert lossy(*(seen(seq) for seq in range(1, 4)), *LOST, reset(1), seen(2), seen(3), *after) == []


def test_a_loss_that_a_reader_is_not_told_of_is_found() -> None:
    """Without the reset, with one that leaves too much valid, or beyond what it had, the reader is misled."""
    before = [seen(seq) for seq in range(1, 4)]
    assert lossy(*before, *LOST, seen(6)) == [Broken.MISLED]
    assert lossy(*before, *LOST, reset(4), seen(5), seen(6)) == [Broken.MISLED]
    assert Broken.MISLED in lossy(*before, reset(9), *(seen(seq) for seq in range(4, 7)))


def test_a_lost_acknowledgement_is_announced_to_its_writer_or_found() -> None:
    """An acknowledged append that is gone is no finding once its writer was told which number is expected."""
    early = append("a", 2, "a-3", 9, began_s=1, ended_s=2)
    gap = append("a", 3, "a-4", None, code="writer_gap", expected=2, began_s=3, ended_s=4)
    again = append("a", 2, "a-3", 5, began_s=5, ended_s=6)
    others = WHOLE.appends[:2]
    assert lossy(*WHOLE.readings[0].heard, appends=[*others, early, again]) == [Broken.LOST]
    assert lossy(*WHOLE.readings[0].heard, appends=[*others, early, gap, again]) == []
    verdict = check(msgspec.structs.replace(WHOLE, lossy=True, appends=[*others, early, gap, again]))
    assert verdict.told_lost == 1
    assert found(appends=[*WHOLE.appends, gap]) == [Broken.FALSE_ALARM]


def test_figures_count_what_a_history_holds() -> None:
    """Acknowledged and delivered events and the longest pauses are those of the history."""
    appends = [append("a", 1, "a-1 a-2", 2, ended_s=1.0), append("a", 2, "a-3", 5, ended_s=3.5)]
    heard: list[Seen | Told] = [seen(1), reset(0), seen(1)]
    reading = Reading(reader="r", heard=heard, heard_at_s=[1.0, 1.5, 5.0])
    history = History(appends=appends, readings=[reading, reading], log=LOG)
    assert (history.acknowledged, history.delivered) == (3, 4)
    assert (history.write_pause_s(), history.read_pause_s()) == (2.5, 3.5)
    assert longest_pause([]) == longest_pause([1.0]) == 0
