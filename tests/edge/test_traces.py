"""The trace of a request, by the rules of W3C Trace Context."""

from __future__ import annotations

import pytest

from gateway.edge.traces import parse_trace

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_traceparent_is_read_and_written_back() -> None:
    """Ids and flags survive."""
    trace = parse_trace(f"00-{TRACE}-{SPAN}-01")
    assert trace is not None
    assert (trace.trace_id, trace.span_id, trace.flags) == (TRACE, SPAN, "01")
    assert str(trace) == f"00-{TRACE}-{SPAN}-01"


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """What it adds at the end is left out."""
    trace = parse_trace(f"cc-{TRACE}-{SPAN}-01-what-comes")
    assert trace is not None
    assert trace.trace_id == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
    ],
)
def test_what_is_no_traceparent_is_no_trace_and_no_error(header: str) -> None:
    """A broken tracer upstream must not break requests."""
    assert parse_trace(header) is None
