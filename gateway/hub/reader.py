"""A reader: a cursor into one log, and how its entries are shown."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from gateway import telemetry
from gateway.domain.cursor import Cursor
from gateway.domain.resume import Verdict, judge, start_over
from gateway.errors import NotFound, StoreUnavailable
from gateway.hub.outlet import Message, Outlet
from gateway.store.log import Entry

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
    """A place in a channel's log, moved on by the channel's pushes or by its outlet's catching up."""

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
        self._preface = list(preface)
        self._epoch = 0

    def attach(self) -> None:
        """Let the channel push."""
        self.channel.readers[self] = None

    def detach(self) -> None:
        """Take the channel's pushes no more."""
        self.channel.readers.pop(self, None)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to send for now."""
        return not self._preface and self.seq == self.channel.ring.head_seq and not self.at_end

    @property
    def at_end(self) -> bool:
        """Whether the log has ended and the reader has all of it."""
        return not self._preface and self.channel.ended and self.seq == self.channel.ring.head_seq

    def push(self) -> int:
        """Send what the ring has beyond this reader and return how many events that was; the outlet must be idle."""
        channel, before = self.channel, self.seq
        if not self._preface and self.seq < channel.ring.head_seq and channel.ring.covers(self.seq):
            messages, self.seq, self.tag = channel.chunk(self.encoder, self.seq)
            if messages:
                self.outlet.offer(messages)
        moved = self.seq - before
        if not self.settled:
            self.outlet.wake()
        return moved

    async def next_messages(self) -> Sequence[Message]:
        """Return the next messages for a reader that is behind, from the ring or from the log."""
        if self._preface:
            preface, self._preface = self._preface, []
            return preface
        channel = self.channel
        if channel.ring.covers(self.seq) and self.seq <= channel.ring.head_seq:
            messages, self.seq, self.tag = channel.chunk(self.encoder, self.seq)
            return messages
        return await self._read_log()

    async def _read_log(self) -> Sequence[Message]:
        epoch = self._epoch
        telemetry.CATCH_UP_READS.inc()
        try:
            head, entries = await self.channel.read_from(self.seq)
        except StoreUnavailable:
            # The reader stays; it goes on when the store is back.
            await self.channel.wait_store()
            return ()
        except NotFound:
            self.channel.mark_gone()
            raise
        if epoch != self._epoch:
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
        if self._preface:
            return ()
        fresh = [entry for entry in entries if entry.seq > self.seq]
        if fresh:
            self.seq, self.tag = fresh[-1].seq, fresh[-1].tag
            return self.encoder.encode(fresh)
        # The log has nothing for this reader; the channel may think otherwise.
        await self.channel.check()
        return ()

    def follow(self, verdict: Verdict, head_seq: int) -> None:
        """Take a verdict of the resume rule: tell the client, and move."""
        if verdict.reset is not None:
            telemetry.RESETS.labels(verdict.reset.reason).inc()
            facts = {"reason": verdict.reset.reason, "valid_through": verdict.reset.valid_through}
            self._preface += self.encoder.control("stream.reset", {**facts, "head_seq": head_seq})
        if verdict.gap is not None:
            facts = {"requested": verdict.gap.requested, "first_seq": verdict.gap.first_seq}
            self._preface += self.encoder.control("stream.gap", facts)
        if verdict.after_seq != self.seq:
            self.seq, self.tag = verdict.after_seq, None

    def roll_back(self, valid_through: int, tag: int | None, first_seq: int, head_seq: int) -> None:
        """Void what the reader has beyond `valid_through`: the log lost it."""
        if self.seq <= valid_through:
            return
        self._epoch += 1
        self.follow(start_over("rolled_back", first_seq=first_seq, valid_through=valid_through), head_seq)
        if self.seq == valid_through:
            self.tag = tag

    def end_messages(self) -> Sequence[Message]:
        """Return the frame that says the log has ended."""
        return self.encoder.control("stream.end", {"status": self.channel.status})
