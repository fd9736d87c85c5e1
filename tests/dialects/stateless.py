"""The promise of every dialect's streams: what an event looks like depends on nothing but the event.

Then a stream may be cut anywhere and resumed, by any process, and reads as if it had never been cut:
`frames(log[:k]) + frames(log[k:]) == frames(log)`.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from gateway.domain.catalogue import CATALOGUE
from gateway.domain.events import NewEvent, encode_rest
from gateway.edge.frames import body_of
from gateway.entry.projection import Projection
from gateway.store.log import Entry
from tests.support.histories import BEGIN_MS

RUN_ID = "01J00000000000000000000000"

_TEXT = st.text(max_size=12)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_NAMES = ("content", "call_id", "name", "input", "output", "status", "error", "reason", "prompt", "level", "message")
# Data as writers send it, well-shaped or not: a projection must not fail on what the log may hold.
_DATA = st.dictionaries(st.sampled_from(_NAMES) | _TEXT, _JSON, max_size=5)
_EVENTS = st.tuples(st.sampled_from([*CATALOGUE, "custom.note"]), _DATA, st.none() | st.just("s1"))


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Any log of a run: every type of event, in any order."""
    entries = []
    for seq, (kind, data, step_id) in enumerate(draw(st.lists(_EVENTS, max_size=12)), 1):
        rest = encode_rest(NewEvent(kind, data, step_id), RUN_ID, BEGIN_MS + seq)
        entries.append(Entry(seq, draw(st.integers(0, 2**32 - 1)), b'{"seq":%d,"attempt":1,' % seq + rest))
    return entries


def shown(projection: Projection, entries: list[Entry]) -> bytes:
    """Return what a reader gets of these entries."""
    return b"".join(body_of(message)["body"] for message in projection.encode(entries))


def check_stateless(projection: Projection, entries: list[Entry], cut: int) -> None:
    """Check that a stream that is cut before entry `cut` and resumed reads as one that was not."""
    assert shown(projection, entries[:cut]) + shown(projection, entries[cut:]) == shown(projection, entries)
    one_by_one = b"".join(shown(projection, [entry]) for entry in entries)
    assert one_by_one == shown(projection, entries)
