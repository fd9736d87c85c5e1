"""What must be true of a log, its writers and its readers, whatever happened meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import httpx

from tests.faults.check import check
from tests.faults.history import Append, History, Reading
from tests.support.transcripts import Transcript, read_log
from tests.support.writers import Outcome, Writer


async def check_all(
    client: httpx.AsyncClient, run_id: str, writers: Iterable[Writer], transcripts: Iterable[Transcript]
) -> int:
    """Check a run's log against everybody who wrote and read it; returns how many events it has."""
    writers, transcripts = list(writers), list(transcripts)
    log = await read_log(client, run_id)
    check_dense(log)
    for writer in writers:
        check_written(log, writer)
    for transcript in transcripts:
        check_read(log, transcript)
    verdict = check(as_history(log, writers, transcripts))
    assert verdict.findings == []
    return len(log)


def as_history(log: list[tuple[int, str]], writers: Iterable[Writer], transcripts: Iterable[Transcript]) -> History:
    """Return what the checker of the fault kit judges: all that readers were given, resets among it."""
    transcripts = list(transcripts)
    appends = [
        Append(writer=writer.name, number=number, marks=(mark,), outcome=Outcome.ACKNOWLEDGED, first_seq=seq)
        for writer in writers
        for number, (seq, mark) in enumerate(writer.acknowledged.items(), 1)
    ]
    readings = [
        Reading(reader=f"reader {index}", heard=transcript.heard, ended=transcript.ended)
        for index, transcript in enumerate(transcripts)
    ]
    lossy = any(transcript.told("stream.reset") for transcript in transcripts)
    return History(appends=appends, readings=readings, log=log, lossy=lossy)


def check_dense(log: list[tuple[int, str]]) -> None:
    """The log is 1, 2, 3 … and no mark stands in it twice."""
    assert [seq for seq, _ in log] == list(range(1, len(log) + 1))
    twice = [mark for mark, count in Counter(mark for _, mark in log if "-" in mark).items() if count > 1]
    assert not twice, f"written twice: {twice[:5]}"


def check_written(log: list[tuple[int, str]], writer: Writer) -> None:
    """Every acknowledged event stands where the acknowledgement said, in the writer's order, and no other does."""
    found = {seq: mark for seq, mark in log if mark.startswith(f"{writer.name}-")}
    assert found == writer.acknowledged
    numbers = [int(mark.rpartition("-")[2]) for mark in found.values()]
    assert numbers == sorted(numbers)


def check_read(log: list[tuple[int, str]], transcript: Transcript) -> None:
    """A reader that has read to the end has read exactly the log."""
    assert transcript.ended
    assert [(seen.seq, seen.mark) for seen in transcript.seen] == log
