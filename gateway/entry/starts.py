"""Where a request wants a stream or a page to begin."""

from __future__ import annotations

from gateway.domain.cursor import START, Cursor, parse, parse_many
from gateway.edge import query as q
from gateway.errors import BadRequest
from gateway.service.streams import Start

AFTER_CHARS = 8_192
SEQ_MOST = 2**53


def read_start(query: q.Query, last_event_id: str | None) -> Start:
    """Return where a reader begins: `Last-Event-ID`, `after`, `after_seq`, else the beginning.

    Raises:
        BadRequest: a malformed parameter; a malformed header is told in the stream.
    """
    return read_starts(query, last_event_id, 1)[0]


def read_starts(query: q.Query, last_event_id: str | None, count: int) -> list[Start]:
    """Return where a reader of `count` runs begins in each; see `read_start`."""
    after = q.read_text(query, "after", max_chars=AFTER_CHARS)
    after_seq = q.read_int(query, "after_seq", low=0, high=SEQ_MOST)
    asked = [START if after_seq is None else Cursor(after_seq)] * count
    if after is not None:
        asked = parse_many(after, count) if count > 1 else [parse(after)]
    if not last_event_id:
        return [Start(cursor) for cursor in asked]
    try:
        return [Start(cursor) for cursor in parse_many(last_event_id, count)]
    except BadRequest:
        return [Start(START, malformed=True)] * count


def start_after(after_seq: int | None, last_event_id: str | None) -> Start:
    """Return where a reader begins that may name a seq: `Last-Event-ID`, the seq, else the beginning."""
    query = {} if after_seq is None else {"after_seq": [str(after_seq)]}
    return read_start(query, last_event_id)
