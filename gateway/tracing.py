"""Spans for OpenTelemetry, where the extra `otel` is installed and asked for; otherwise nothing, at no cost.

Spans are recorded whole, once what they tell of is over: a stream or a run outlives every block of code, and the span
of a run begins in one process and ends in another. The SDK's batching, resource and exporter do the rest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from gateway import __version__
from gateway.errors import GatewayError

NOT_INSTALLED: Final = "GATEWAY_TRACES=otlp needs OpenTelemetry: pip install 'run-gateway[otel]'."


class TracingUnavailable(GatewayError):
    """Traces are asked for, and what sends them is not installed."""

    code = "tracing_unavailable"


class Place(NamedTuple):
    """A span that others hang below: hexadecimal ids."""

    trace_id: str
    span_id: str


current: ContextVar[Place | None] = ContextVar("span", default=None)
"""The span of the request that is being answered, while traces are sent."""


subject: ContextVar[Place | None] = ContextVar("subject", default=None)
"""The span of the run that the present request reads, while traces are sent."""


class Span(NamedTuple):
    """Something that is over.

    `milestones` are moments within it, by name, in Unix ns.
    """

    name: str
    place: Place
    parent_id: str | None
    began_ns: int
    ended_ns: int
    kind: str = "internal"
    facts: Mapping[str, Any] = {}
    failure: str | None = None
    milestones: Mapping[str, int] = {}


class Tracer:
    """Hands spans to OpenTelemetry's SDK, which sends them from a thread of its own.

    Args:
        share: Of the traces that nobody has decided about, how many are kept: from 0 to 1.
        exporter: What sends them; None for OTLP over HTTP as the `OTEL_EXPORTER_OTLP_…` variables say.

    Raises:
        TracingUnavailable: the extra is not installed.
    """

    def __init__(self, share: float, exporter: Any = None) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk import trace as sdk
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError as error:
            raise TracingUnavailable(NOT_INSTALLED) from error
        self._trace, self._sdk = trace, sdk
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before.
        named = {"service.name": os.environ.get("OTEL_SERVICE_NAME") or "run-gateway", "service.version": __version__}
        self._resource = Resource.create(named)
        self._scope = InstrumentationScope("gateway", __version__)
        self._sender = BatchSpanProcessor(exporter if exporter is not None else OTLPSpanExporter())
        self._bound = round(share * 2**56)

    def keeps(self, trace_id: str) -> bool:
        """Whether a trace is kept: every process says the same of it."""
        return int(trace_id[-14:], 16) < self._bound

    def record(self, span: Span) -> None:
        """Have a span sent soon; when the queue is full it is dropped."""
        trace, sdk, place = self._trace, self._sdk, span.place
        parent = None if span.parent_id is None else self._context(place.trace_id, span.parent_id, remote=True)
        code = trace.StatusCode.ERROR if span.failure is not None else trace.StatusCode.UNSET
        readable = sdk.ReadableSpan(
            span.name,
            context=self._context(place.trace_id, place.span_id, remote=False),
            parent=parent,
            resource=self._resource,
            attributes={name: fact for name, fact in span.facts.items() if fact is not None},
            events=[sdk.Event(name, timestamp=at_ns) for name, at_ns in span.milestones.items()],
            kind=trace.SpanKind[span.kind.upper()],
            status=trace.Status(code, span.failure),
            start_time=span.began_ns,
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )
        self._sender.on_end(readable)

    def _context(self, trace_id: str, span_id: str, *, remote: bool) -> Any:
        flags = self._trace.TraceFlags(self._trace.TraceFlags.SAMPLED)
        return self._trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=flags)

    def close(self) -> None:
        """Send what is left; waits for it."""
        self._sender.shutdown()  # type: ignore[no-untyped-call]


class _Tracing:
    """The process's tracer, while there is one."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None


_tracing: Final = _Tracing()


def require() -> None:
    """See whether what sends traces is installed.

    Raises:
        TracingUnavailable: it is not.
    """
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        raise TracingUnavailable(NOT_INSTALLED)


def begin(tracer: Tracer) -> None:
    """Have spans sent by `tracer` from now on."""
    _tracing.tracer = tracer


def end() -> None:
    """Send what is left and trace no more; waits for the network."""
    tracer, _tracing.tracer = _tracing.tracer, None
    if tracer is not None:
        tracer.close()


def is_on() -> bool:
    """Whether spans are sent at all."""
    return _tracing.tracer is not None


def keeps(trace_id: str) -> bool:
    """Whether spans of this trace are sent."""
    return _tracing.tracer is not None and _tracing.tracer.keeps(trace_id)


def record(span: Span) -> None:
    """Have a span sent, if any are."""
    if _tracing.tracer is not None:
        _tracing.tracer.record(span)


def record_call(name: str, took_s: float, facts: Mapping[str, Any], failure: str | None = None) -> None:
    """Have something told that has just ended within the present request."""
    parent = current.get()
    if parent is None or _tracing.tracer is None:
        return
    now_ns = time.time_ns()
    place = Place(parent.trace_id, new_span_id())
    span = Span(name, place, parent.span_id, now_ns - round(took_s * 1e9), now_ns, "client", facts, failure)
    _tracing.tracer.record(span)


def new_trace_id() -> str:
    """Return the id of a trace that begins here."""
    return os.urandom(16).hex()


def new_span_id() -> str:
    """Return the id of a span."""
    return os.urandom(8).hex()
