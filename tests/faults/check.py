"""What must be true of every history: dense, readable as acknowledged, nothing twice, every loss announced."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise

import msgspec

from tests.faults.history import Append, History, Reading
from tests.support.transcripts import Seen, Told
from tests.support.writers import Outcome


class Broken(StrEnum):
    """A promise that a history shows broken."""

    HOLE = "hole"  # the log is not 1, 2, 3 …
    TWICE = "twice"  # one event stands in the log, or was acknowledged, at two places
    LOST = "lost"  # acknowledged, and not where the acknowledgement said
    REFUSED_STANDS = "refused_stands"  # what was refused or not written stands in the log
    TORN = "torn"  # of a batch some events stand in the log, others do not, or not together
    STRANGER = "stranger"  # an event in the log that nobody wrote
    OUT_OF_ORDER = "out_of_order"  # a writer's events stand in another order than it wrote them
    FAULTY_ANSWER = "faulty_answer"  # the gateway answered with an error of its own
    SKIPPED = "skipped"  # a reader was given an event, and not the one before it
    REPEATED = "repeated"  # a reader was given an event that it had
    MISLED = "misled"  # a reader holds for true what is not in the log, and was not told
    UNFINISHED = "unfinished"  # a reader was told that the run had ended, and lacks events; or was never told
    FALSE_ALARM = "false_alarm"  # a reader or a writer was told of a loss, and there was none
    TWO_CURSORS = "two_cursors"  # one cursor stands for two events, or one event of a log has two cursors


class Finding(msgspec.Struct, frozen=True):
    """One broken promise, whose it was, and what shows it."""

    broken: Broken
    who: str
    detail: str


class Verdict(msgspec.Struct, frozen=True):
    """What a history shows.

    Args:
        told_lost: How many acknowledged events were lost, and their writers told so.
    """

    findings: list[Finding]
    told_lost: int

    def count(self, *kinds: Broken) -> int:
        """Return how often these promises were broken."""
        return sum(finding.broken in kinds for finding in self.findings)


def check(history: History) -> Verdict:
    """Hold a history against every promise."""
    told = _told_lost(history)
    findings = [
        *_check_log(history),
        *_check_appends(history, told),
        *_check_order(history),
        *_check_strangers(history),
        *(finding for reading in history.readings for finding in _check_reading(reading, history)),
        *_check_cursors(history),
    ]
    return Verdict(findings, sum(len(append.marks) for append in told))


def _told_lost(history: History) -> set[Append]:
    """Return the acknowledged appends of which their writers were told, later, that the store has lost them."""
    told: defaultdict[str, list[Append]] = defaultdict(list)
    for append in history.appends:
        if append.expected is not None:
            told[append.writer].append(append)
    return {
        append
        for append in history.appends
        if append.outcome is Outcome.ACKNOWLEDGED
        for later in told[append.writer]
        if later.expected is not None and later.expected <= append.number and later.ended_s >= append.ended_s
    }


def _check_log(history: History) -> Iterator[Finding]:
    seqs = [seq for seq, _ in history.log]
    if seqs != list(range(1, len(seqs) + 1)):
        wrong = next(place for place, seq in enumerate(seqs, 1) if seq != place)
        yield Finding(Broken.HOLE, "log", f"{seqs[wrong - 1]} stands where {wrong} should")
    for mark, count in Counter(mark for _, mark in history.log if "-" in mark).items():
        if count > 1:
            yield Finding(Broken.TWICE, "log", f"{mark} stands in it {count} times")


def _check_appends(history: History, told: set[Append]) -> Iterator[Finding]:
    log = dict(history.log)
    places = {mark: seq for seq, mark in history.log}
    known = {a.marks for a in history.appends if a.outcome in (Outcome.ACKNOWLEDGED, Outcome.UNKNOWN)}
    for append in history.appends:
        found = [places[mark] for mark in append.marks if mark in places]
        if append.code == "internal":
            yield Finding(Broken.FAULTY_ANSWER, append.writer, f"append {append.number} was answered with 500")
        if found and (len(found) < len(append.marks) or found[-1] - found[0] != len(found) - 1):
            yield Finding(Broken.TORN, append.writer, f"{append.marks} stand at {found}")
        if append.outcome is Outcome.ACKNOWLEDGED and append not in told:
            yield from _check_acknowledged(append, log)
        elif append.marks not in known and found:
            yield Finding(Broken.REFUSED_STANDS, append.writer, f"{append.outcome}, and {append.marks} at {found}")
        if append.expected is not None and not history.lossy:
            yield Finding(Broken.FALSE_ALARM, append.writer, f"append {append.number}: {append.expected} was expected")


def _check_order(history: History) -> Iterator[Finding]:
    """Find writers whose events stand in another order than they wrote them.

    What nobody knows of may be stored as late as it likes: its writer did not wait for it.
    """
    known = {mark for append in history.appends if append.outcome is Outcome.ACKNOWLEDGED for mark in append.marks}
    by_writer: defaultdict[str, list[int]] = defaultdict(list)
    for _, mark in history.log:
        if mark in known:
            writer, _, number = mark.rpartition("-")
            by_writer[writer].append(int(number))
    for writer, numbers in by_writer.items():
        wrong = [pair for pair in pairwise(numbers) if pair[0] > pair[1]]
        if wrong:
            yield Finding(Broken.OUT_OF_ORDER, writer, f"{wrong[0][1]} stands after {wrong[0][0]}")


def _check_acknowledged(append: Append, log: dict[int, str]) -> Iterator[Finding]:
    assert append.first_seq is not None
    for seq, mark in enumerate(append.marks, append.first_seq):
        if log.get(seq) != mark:
            yield Finding(Broken.LOST, append.writer, f"{mark} was acknowledged at {seq}, where {log.get(seq)} stands")


def _check_strangers(history: History) -> Iterator[Finding]:
    written = {mark for append in history.appends for mark in append.marks}
    for seq, mark in history.log:
        if "-" in mark and mark not in written:
            yield Finding(Broken.STRANGER, "log", f"{mark} at {seq}")


def _check_reading(reading: Reading, history: History) -> Iterator[Finding]:
    held: list[Seen] = []
    for item in reading.heard:
        if isinstance(item, Told):
            if item.name == "stream.reset":
                yield from _check_reset(reading, item, held, history)
                del held[item.facts["valid_through"] :]
            elif item.name == "stream.gap":
                yield Finding(Broken.FALSE_ALARM, reading.reader, f"a gap in a log that is whole: {item.facts}")
            continue
        last = held[-1].seq if held else 0
        if item.seq > last + 1:
            yield Finding(Broken.SKIPPED, reading.reader, f"{item.seq} came after {last}")
        elif item.seq <= last:
            yield Finding(Broken.REPEATED, reading.reader, f"{item.seq} came after {last}")
            continue
        held.append(item)
    yield from _check_held(reading, held, history)


def _check_reset(reading: Reading, reset: Told, held: list[Seen], history: History) -> Iterator[Finding]:
    if not history.lossy:
        yield Finding(Broken.FALSE_ALARM, reading.reader, f"a reset without a loss: {reset.facts}")
    if held and reset.facts["valid_through"] > held[-1].seq:
        yield Finding(Broken.MISLED, reading.reader, f"a reset to beyond {held[-1].seq}: {reset.facts}")


def _check_held(reading: Reading, held: list[Seen], history: History) -> Iterator[Finding]:
    log = dict(history.log)
    wrong = next((seen for seen in held if log.get(seen.seq) != seen.mark), None)
    if wrong is not None:
        stands = log.get(wrong.seq)
        yield Finding(Broken.MISLED, reading.reader, f"holds {wrong.mark} at {wrong.seq}, where {stands} stands")
    if not reading.ended:
        yield Finding(Broken.UNFINISHED, reading.reader, f"was not told of the end; holds {len(held)} events")
    elif len(held) < len(log):
        yield Finding(Broken.UNFINISHED, reading.reader, f"was told of the end with {len(held)} of {len(log)} events")


def _check_cursors(history: History) -> Iterator[Finding]:
    marks: dict[str, str] = {}
    cursors: dict[int, str] = {}
    for reading in history.readings:
        for item in reading.heard:
            if not isinstance(item, Seen):
                continue
            if marks.setdefault(item.cursor, item.mark) != item.mark:
                yield Finding(Broken.TWO_CURSORS, reading.reader, f"{item.cursor} is {item.mark} and another")
            if not history.lossy and cursors.setdefault(item.seq, item.cursor) != item.cursor:
                yield Finding(Broken.TWO_CURSORS, reading.reader, f"{item.seq} is {item.cursor} and another")
