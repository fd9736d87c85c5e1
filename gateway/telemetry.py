"""What operators see: metrics, and log lines that say which request and which run they belong to."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final, Literal, TextIO

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.multiprocess import mark_process_dead

LogForm = Literal["json", "text"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
run_id: ContextVar[str | None] = ContextVar("run_id", default=None)

_FAST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

HTTP_REQUESTS = Counter("gateway_http_requests", "Requests answered.", ["route", "method", "status"])
HTTP_ANSWER_SECONDS = Histogram(
    "gateway_http_answer_seconds",
    "Time from a request's headers to the start of its answer; for a stream, to its first byte.",
    ["route", "method"],
    buckets=_FAST_S,
)

APPENDS = Counter("gateway_appends", "Appends by outcome: an error's code, or ok, or duplicate.", ["outcome"])
APPEND_SECONDS = Histogram("gateway_append_seconds", "Time an append took at the store.", buckets=_FAST_S)
EVENTS_APPENDED = Counter("gateway_events_appended", "Events acknowledged as stored.")

DELIVERIES = Counter("gateway_deliveries", "Events handed to readers: events times readers.", ["transport"])
READERS = Gauge("gateway_readers", "Open readers.", ["transport"], multiprocess_mode="livesum")
READERS_LAGGING = Gauge(
    "gateway_readers_lagging",
    "Readers whose connection takes no more at present.",
    multiprocess_mode="livesum",
)
CATCH_UP_READS = Counter("gateway_catch_up_reads", "Reads of the log for readers that left the ring behind.")
GAPS_REPAIRED = Counter("gateway_notification_gaps_repaired", "Holes in notifications filled from the log.")
RESETS = Counter("gateway_stream_resets", "Readers told that the log no longer agrees with them.", ["reason"])

STORE_ERRORS = Counter("gateway_store_errors", "Calls that the store did not answer.", ["call"])
STORE_RECONNECTS = Counter("gateway_store_reconnects", "Notification connections made anew.")
PROBE_SECONDS = Histogram(
    "gateway_probe_seconds", "Round trip of a probe through the store's publish path.", buckets=_FAST_S
)

CLAIM_WAIT_SECONDS = Histogram(
    "gateway_claim_wait_seconds", "Time from queued to claimed, of claimed runs.", buckets=_FAST_S
)
CLAIMS_WAITING = Gauge("gateway_claims_waiting", "Claims that wait for work.", multiprocess_mode="livesum")

REFUSED = Counter(
    "gateway_refused", "What was refused, held up or cut off since a limit was reached, by the limit.", ["reason"]
)
REQUESTS_WAITING = Gauge("gateway_requests_waiting", "Requests that wait for their turn.", multiprocess_mode="livesum")
STREAMS_WAITING = Gauge(
    "gateway_streams_waiting", "Streams that are held until another ends.", multiprocess_mode="livesum"
)
BODIES_BYTES = Gauge("gateway_bodies_bytes", "Memory that requests' bodies hold.", multiprocess_mode="livesum")
RINGS_BYTES = Gauge("gateway_rings_bytes", "Memory for the latest events of all runs.", multiprocess_mode="livesum")
UNSENT_BYTES = Gauge("gateway_unsent_bytes", "Memory for what readers have not taken yet.", multiprocess_mode="livesum")
CONNECTIONS = Gauge("gateway_connections", "Open connections.", multiprocess_mode="livesum")

TIMERS_LAG_SECONDS = Gauge(
    "gateway_timers_lag_seconds", "How long the oldest due timer has waited.", ["kind"], multiprocess_mode="livemax"
)
TIMERS_FIRED = Counter("gateway_timers_fired", "Timers looked after.", ["kind"])

WEBHOOK_DELIVERIES = Counter(
    "gateway_webhook_deliveries", "Tries to tell a webhook: delivered, retrying, failed, disabled.", ["outcome"]
)
WEBHOOK_LAG_SECONDS = Histogram(
    "gateway_webhook_lag_seconds",
    "Time from an event to its delivery.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 21_600.0, 86_400.0, 345_600.0),
)

SCHEDULE_TICKS = Counter("gateway_schedule_ticks", "Ticks of schedules: run, skipped, failed.", ["outcome"])

FILE_BYTES = Counter("gateway_file_bytes", "Bytes of files that were stored (in) or asked for (out).", ["way"])
FILES_REMOVED = Counter(
    "gateway_files_removed", "Files removed by the sweep: for their age, or bytes that no record names.", ["cause"]
)

_LOG_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_SECRETS: Final = re.compile(r"((?:ticket|signature)=)[^&\s\\\"']+|\b(gwk_)[A-Za-z0-9_-]+|\b(whsec_)[A-Za-z0-9+/=_-]+")

_access_log: Final = logging.getLogger("gateway.access")


def observe_answer(*, route: str, method: str, path: str, status: int, waited_s: float) -> None:
    """Count one answer, at its start, and log it; `route` is the template, so that labels stay few."""
    requests, seconds = _answers_of(route, method, status)
    requests.inc()
    seconds.observe(waited_s)
    if _access_log.isEnabledFor(logging.DEBUG):
        waited_ms = round(waited_s * 1_000, 3)
        _access_log.debug("%s %s %d", method, path, status, extra={"route": route, "waited_ms": waited_ms})


@lru_cache(1_000)
def _answers_of(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    """Return what counts these answers: finding it costs more than counting."""
    return HTTP_REQUESTS.labels(route, method, str(status)), HTTP_ANSWER_SECONDS.labels(route, method)


def set_up_logging(form: Literal["json", "text"], level: str, *, stream: TextIO | None = None) -> logging.Handler:
    """Send every log line to `stream` (standard error by default) and return the handler that does it.

    Tickets, signatures and keys are blotted out of every line, whoever wrote it: servers log whole URLs.

    Args:
        form: `json` gives one object a line; `text` is for reading.
        level: of the root logger, such as `INFO`.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        server_log = logging.getLogger(name)
        server_log.handlers.clear()
        server_log.propagate = True
    return handler


def forget_process(pid: int, folder: str) -> None:
    """Leave a process that has ended out of the gauges of those that live; `folder` is what they share."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {"request_id": request_id.get(), "run_id": run_id.get()}
    fields |= {name: value for name, value in vars(record).items() if name not in _LOG_FIELDS}
    return {name: value for name, value in fields.items() if value is not None}


def _blot(line: str) -> str:
    return _SECRETS.sub(lambda found: f"{found[1] or found[2] or found[3]}…", line)


def _moment(created_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created_s)) + f".{int(created_s % 1 * 1_000):03d}Z"


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, logger, message, request_id, run_id, and the call's extras."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"at": _moment(record.created), "level": record.levelname, "logger": record.name}
        line |= {"message": record.getMessage()} | _fields(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _blot(json.dumps(line, default=str))


class TextLines(logging.Formatter):
    """Lines for reading: time, level, logger, message, then what a JSON line would hold besides."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{_moment(record.created)} {record.levelname:<7} {record.name} {record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return _blot(line)
