"""A reader: a cursor into one log, and how its entries are shown."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from gateway import telemetry
from gateway.domain.cursor import Cursor
from gateway.domain.resume import Gap, Verdict, judge, start_over
from gateway.errors import NotFound, StoreUnavailable
from gateway.hub.outlet import Message, Outlet
from gateway.hub.ring import oldest_run
from gateway.store.log import Entry, LogHead

if TYPE_CHECKING:
    from gateway.hub.channel import Channel


class Encoder(Protocol):
    """Entries and control frames as messages of a transport."""

    @property
    def key(self) -> Hashable | None:
        """Readers with equal keys get the same messages, encoded once; None when they cannot be shared."""
        ...

    def encode(self, entries: Sequence[Entry]) -> Sequence[Message]:
        """Return the messages that show `entries`; none when its filter passes none of them."""
        ...

    def control(self, name: str, facts: dict[str, Any], cursor: Cursor | None = None) -> Sequence[Message]:
        """Return the messages of a control frame such as `stream.gap`."""
        ...


class Reader:
    """A place in a channel's log, moved on by the channel's pushes or by its outlet's catching up.

    Args:
        after: Where it stands, as the log was when it was last asked.
        preface: What is said before anything else.
    """

    __slots__ = (
        "_doubted",
        "_notes",
        "_rollbacks",
        "attached",
        "began_seq",
        "channel",
        "encoder",
        "in_step",
        "outlet",
        "seq",
        "tag",
    )

    def __init__(
        self,
        channel: Channel,
        outlet: Outlet,
        encoder: Encoder,
        *,
        after: Cursor,
        preface: Sequence[Message] = (),
    ) -> None:
        self.channel = channel
        self.outlet = outlet
        self.encoder = encoder
        self.seq = after.seq
        self.tag = after.tag
        # Encoded when they are said: what an encoder says may move the place that it tells with the next event.
        self._notes: Sequence[Callable[[], Sequence[Message]]] = (lambda: preface,) if preface else ()
        self._doubted = False
        self._rollbacks = 0
        self.attached = False
        self.began_seq = after.seq
        # Whether nothing comes before the next event.
        self.in_step = not preface

    def attach(self) -> None:
        """Let the channel push."""
        self.attached = True
        self.began_seq = self.seq
        self.channel.attach(self)

    def detach(self) -> None:
        """Take the channel's pushes no more."""
        if self.attached:
            self.attached = False
            self.outlet.passed += max(self.seq - self.began_seq, 0)
            self.channel.detach(self)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to send for now."""
        return self._at_head and not self.channel.ended

    @property
    def at_end(self) -> bool:
        """Whether the log has ended and the reader has all of it."""
        return self._at_head and self.channel.ended

    @property
    def _at_head(self) -> bool:
        return self.in_step and self.seq == self.channel.ring.head_seq

    @property
    def in_ring(self) -> bool:
        """Whether the ring has what comes next."""
        return self.in_step and self.channel.ring.continues(self.seq)

    def push(self) -> int:
        """Send what the ring has beyond this reader, and return how many events that was; the outlet must be idle."""
        before, pushed = self.seq, 0
        if self.in_ring:
            messages = self._take_chunk()
            pushed = self.seq - before
            if messages:
                self.outlet.offer(messages)
        if not self.settled:
            self.outlet.wake()
        return pushed

    def _take_chunk(self) -> Sequence[Message]:
        chunk = self.channel.chunk(self.encoder, self.seq)
        self.seq, self.tag = chunk.seq, chunk.tag
        return chunk.messages

    def _take_behind(self) -> Sequence[Message]:
        before = self.seq
        messages = self._take_chunk()
        telemetry.caught_up(self.outlet.transport).inc(self.seq - before)
        return messages

    def notes(self) -> Sequence[Message]:
        """Return what must be said before the next event."""
        notes, self._notes = self._notes, ()
        self.in_step = not self._doubted
        return [message for note in notes for message in note()]

    def next_at_once(self) -> Sequence[Message]:
        """Return what comes next as far as it is at hand; nothing when the log must be asked, or has nothing."""
        if self._doubted:
            return ()
        messages = self.notes() if self._notes else ()
        return [*messages, *self._take_behind()] if self.in_ring and self._agrees() else messages

    async def next_messages(self) -> Sequence[Message]:
        """Return the next messages for a reader that is behind, from the ring or from the log."""
        if self._notes:
            return self.notes()
        if self.in_ring and self._agrees():
            return self._take_behind()
        if self._at_head:
            return ()
        try:
            return await self._read_log()
        except StoreUnavailable:
            # The reader stays; it goes on when the store is back.
            self.outlet.waits_for = "store"
            await self.channel.wait_store()
            self.outlet.waits_for = "log"
        except NotFound:
            self.channel.mark_gone()
        return ()

    def _agrees(self) -> bool:
        """Whether the ring is of the same log as the reader; it may not have heard of a rollback yet."""
        return self.tag is None or self.channel.ring.tag_at(self.seq) in (None, self.tag)

    async def _read_log(self) -> Sequence[Message]:
        rollbacks = self._rollbacks
        telemetry.CATCH_UP_READS.inc()
        head, entries = await self.channel.read_from(self.seq)
        if rollbacks != self._rollbacks:
            return ()
        found = entries[0].tag if entries and entries[0].seq == self.seq else None
        verdict = judge(
            Cursor(self.seq, self.tag),
            head_seq=head.seq,
            head_tag=head.tag,
            first_seq=head.first_seq,
            found_tag=found,
        )
        self.follow(verdict, head.seq)
        self._doubted = False
        self.in_step = not self._notes
        if self._notes:
            if verdict.reset is not None:
                self.channel.repair.request()
            return ()
        fresh = [entry for entry in entries if entry.seq > self.seq]
        present = fresh[0].seq if fresh else head.seq + 1
        if present > self.seq + 1:
            # Entries between are gone, though the record knows of no trimming: told, never skipped in silence.
            self.follow(Verdict(present - 1, gap=Gap(self.seq + 1, present)), head.seq)
            return ()
        if fresh:
            whole = oldest_run(fresh)
            self.seq, self.tag = whole[-1].seq, whole[-1].tag
            telemetry.caught_up(self.outlet.transport).inc(len(whole))
            return self.encoder.encode(whole)
        # The log has nothing for this reader; the channel may think otherwise.
        await self.channel.repair.check()
        return ()

    def follow(self, verdict: Verdict, head_seq: int) -> None:
        """Take a verdict of the resume rule: tell the client, and move."""
        if verdict.reset is not None:
            telemetry.RESETS.labels(verdict.reset.reason).inc()
            facts = {"reason": verdict.reset.reason, "valid_through": verdict.reset.valid_through}
            self._note("stream.reset", {**facts, "head_seq": head_seq})
            self.tag = None
        if verdict.gap is not None:
            self._note("stream.gap", {"requested": verdict.gap.requested, "first_seq": verdict.gap.first_seq})
        if verdict.after_seq != self.seq:
            self.seq, self.tag = verdict.after_seq, None

    def _note(self, name: str, facts: dict[str, Any]) -> None:
        self._notes = (*self._notes, lambda: self.encoder.control(name, facts))
        self.in_step = False

    def roll_back(self, head: LogHead, oldest: int, valid_through: int) -> None:
        """Void what the reader has beyond `valid_through`: the log lost it.

        Args:
            oldest: Of readers before this seq nothing is known; the log is asked.
        """
        self._rollbacks += 1
        if self.seq < oldest:
            self._doubted = self.seq > 0
            self.in_step = self.in_step and not self._doubted
        elif self.seq > valid_through:
            verdict = start_over("rolled_back", first_seq=head.first_seq, valid_through=valid_through)
            self.follow(verdict, head.seq)
            self.tag = self.channel.ring.tag_at(self.seq) if verdict.gap is None else None

    def end_messages(self) -> Sequence[Message]:
        """Return the frame that says the log has ended, with the place of its end.

        A browser comes back after a clean end, with the last id that it saw: one that has all of the log, but was
        given no event of it, would come back for ever.
        """
        end = Cursor(self.seq, self.channel.ring.tag_at(self.seq))
        return self.encoder.control("stream.end", {"status": self.channel.status}, end)
