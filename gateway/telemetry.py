"""What operators see: metrics, and log lines that say which request and which run they belong to."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final, Literal, TextIO

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.multiprocess import mark_process_dead

LogForm = Literal["json", "text"]
AccessLog = Literal["all", "slow", "errors", "off"]

# Small texts, not the request: timers and tasks that it leaves behind keep their context.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)
run_id: ContextVar[str | None] = ContextVar("run_id", default=None)
# In no line: only what kind of address it is is told.

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

DELIVERIES = Counter(
    "gateway_deliveries",
    "Events handed to readers, events times readers: live as they came, catch_up to who lacked them.",
    ["transport", "way"],
)
READERS = Gauge("gateway_readers", "Open readers.", ["transport"], multiprocess_mode="livesum")
READERS_LAGGING = Gauge(
    "gateway_readers_lagging",
    "Readers whose connection takes no more at present.",
    multiprocess_mode="livesum",
)
READERS_BEHIND = Gauge(
    "gateway_readers_behind",
    "Readers that lack events, by what they wait for: connection (it takes no more), log (being read), store (away).",
    ["transport", "reason"],
    multiprocess_mode="livesum",
)
READER_LAG_EVENTS = Gauge(
    "gateway_reader_lag_events_max", "Events that the reader who lacks most lacks.", multiprocess_mode="livemax"
)
READER_LAG_SECONDS = Gauge(
    "gateway_reader_lag_seconds_max",
    "How long the reader has lacked events who has lacked some for longest.",
    multiprocess_mode="livemax",
)
STREAMS_ENDED = Counter(
    "gateway_streams_ended",
    "Streams that ended, by cause: end (of all logs), gone (the client), drain, key_revoked, ticket_expired, …",
    ["transport", "cause"],
)
CATCH_UP_READS = Counter("gateway_catch_up_reads", "Reads of the log for readers that left the ring behind.")
GAPS_REPAIRED = Counter("gateway_notification_gaps_repaired", "Holes in notifications filled from the log.")
RESETS = Counter("gateway_stream_resets", "Readers told that the log no longer agrees with them.", ["reason"])

STORE_ERRORS = Counter("gateway_store_errors", "Calls that the store did not answer.", ["outcome"])
STORE_UP = Gauge(
    "gateway_store_connections", "Connections to the store that stand.", ["link"], multiprocess_mode="livesum"
)
STORE_CALLS_OPEN = Gauge(
    "gateway_store_calls_open", "Calls that wait for the store's reply.", ["link"], multiprocess_mode="livesum"
)
STORE_OLDEST_CALL_SECONDS = Gauge(
    "gateway_store_oldest_call_seconds", "How long the oldest open call waits.", ["link"], multiprocess_mode="livemax"
)
STORE_CLOCK_AHEAD_SECONDS = Gauge(
    "gateway_store_clock_ahead_seconds", "The store's clock against this machine's.", multiprocess_mode="livemostrecent"
)
STORE_RECONNECTS = Counter("gateway_store_reconnects", "Notification connections made anew.")
PROBE_SECONDS = Histogram(
    "gateway_probe_seconds", "Round trip of a probe through the store's publish path.", buckets=_FAST_S
)

CLAIM_WAIT_SECONDS = Histogram(
    "gateway_claim_wait_seconds", "Time from queued to claimed, of claimed runs.", buckets=_FAST_S
)
CLAIMS_WAITING = Gauge("gateway_claims_waiting", "Claims that wait for work.", multiprocess_mode="livesum")

QUEUE_WAITING = Gauge(
    "gateway_queue_waiting", "Runs that wait in a queue, all tenants'.", ["queue"], multiprocess_mode="livemostrecent"
)
QUEUE_HELD = Gauge(
    "gateway_queue_held", "Runs of a queue that workers hold.", ["queue"], multiprocess_mode="livemostrecent"
)
QUEUE_OLDEST_SECONDS = Gauge(
    "gateway_queue_oldest_seconds",
    "How long the first run in turn has waited.",
    ["queue"],
    multiprocess_mode="livemostrecent",
)
RUN_CHANGES = Counter("gateway_run_changes", "Runs that entered a status.", ["status"])
ATTEMPTS_FAILED = Counter(
    "gateway_attempts_failed", "Attempts that failed, by cause; lease_lost among them.", ["cause"]
)
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

LOOP_PAUSE_SECONDS = Histogram(
    "gateway_loop_pause_seconds", "How much too late the event loop came to what was due.", buckets=_FAST_S
)
LOOP_PAUSE_MAX_SECONDS = Gauge(
    "gateway_loop_pause_max_seconds", "The longest such pause of the last half minute.", multiprocess_mode="livemax"
)
PROCESSES = Gauge("gateway_processes", "Processes that serve.", multiprocess_mode="livesum")
PROCESSES_READY = Gauge("gateway_processes_ready", "Those that may be sent requests.", multiprocess_mode="livesum")
PROCESS_RESIDENT_BYTES = Gauge(
    "gateway_process_resident_bytes", "Memory of all serving processes.", multiprocess_mode="livesum"
)
PROCESS_CPU_SECONDS = Counter("gateway_process_cpu_seconds", "Processor time of all serving processes.")
PROCESS_OPEN_FILES = Gauge(
    "gateway_process_open_files_max", "Open files of the process that has most.", multiprocess_mode="livemax"
)
PROCESS_FILES_LIMIT = Gauge(
    "gateway_process_open_files_limit", "Most files that a process may open.", multiprocess_mode="livemin"
)
BUILD_INFO = Gauge("gateway_build_info", "What runs.", ["version", "python"], multiprocess_mode="livemax")

_LOG_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_SECRETS: Final = re.compile(r"((?:ticket|signature)=)[^&\s\\\"']+|\b(gwk_)[A-Za-z0-9_-]+|\b(whsec_)[A-Za-z0-9+/=_-]+")

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROLS.update({0x2028: "\\u2028", 0x2029: "\\u2029"})
_TRACEBACK_CONTROLS: Final = {code: text for code, text in _CONTROLS.items() if code != ord("\n")}
# Asked for all the time, by machines.
_UNTOLD: Final = frozenset({"/healthz", "/readyz", "/metrics"})

# Whose clients ask them to wait.
_WAITING: Final = ("/claims", "/wait")
_encode: Final = json.JSONEncoder(default=str).encode

_access_log: Final = logging.getLogger("gateway.access")


class _Access:
    """Which answers have a line in the log, and from where on one is slow."""

    def __init__(self) -> None:
        self.told: AccessLog = "slow"
        self.slow_s = 1.0


_access: Final = _Access()


def set_up_access_log(told: AccessLog, *, slow_ms: int) -> None:
    """Have all answers logged, those that are slow or errors, only errors (of 500 and more), or none."""
    _access.told, _access.slow_s = told, slow_ms / 1_000


def tells_all() -> bool:
    """Whether what went well and fast has a line of its own."""
    return _access.told == "all" and _access_log.isEnabledFor(logging.INFO)


def origin() -> dict[str, str]:
    """Return what the present request is called, for lines that are written when it is over."""
    names = {"request_id": request_id.get(), "trace_id": trace_id.get(), "run_id": run_id.get()}
    return {name: value for name, value in names.items() if value is not None}


def name_run(run: str, trace: str | None = None) -> None:
    """Have the lines of the present task name a run, and its trace where its request told none."""
    run_id.set(run)
    if trace_id.get() is None:
        trace_id.set(trace)


def observe_answer(*, route: str, method: str, status: int, waited_s: float) -> None:
    """Count one answer, at its start; `route` is the template, so that labels stay few."""
    requests, seconds = _answers_of(route, method, status)
    requests.inc()
    seconds.observe(waited_s)


def tell_answer(*, route: str, method: str, path: str, status: int, took_s: float, facts: Mapping[str, Any]) -> None:
    """Log one answer, at its end, if such answers are told; `facts` of None are left out."""
    if not _tells(route, method, status, took_s) or not _access_log.isEnabledFor(logging.INFO):
        return
    extra: dict[str, Any] = {"method": method, "route": route, "status": status, "duration_ms": round(took_s * 1e3, 3)}
    extra.update({name: fact for name, fact in facts.items() if fact is not None})
    _access_log.info("%s %s %d", method, path, status, extra=extra)


def _tells(route: str, method: str, status: int, took_s: float) -> bool:
    told = _access.told
    if told == "off" or status >= 500:
        return told != "off"
    if told == "slow":
        waits = method == "WEBSOCKET" or route.endswith(_WAITING)
        return took_s >= _access.slow_s and not waits
    return told == "all" and route not in _UNTOLD


@lru_cache(100)
def caught_up(transport: str) -> Counter:
    """Return what counts the events that readers were behind with."""
    return DELIVERIES.labels(transport, "catch_up")


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
    fields: dict[str, Any] = dict(origin())
    fields |= {name: value for name, value in vars(record).items() if name not in _LOG_FIELDS}
    return {name: value for name, value in fields.items() if value is not None}


def _blot(line: str) -> str:
    return _SECRETS.sub(lambda found: f"{found[1] or found[2] or found[3]}…", line)


def moment(created_s: float) -> str:
    """Return a Unix time as logs tell it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created_s)) + f".{int(created_s % 1 * 1_000):03d}Z"


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, logger, message, request_id, trace_id, run_id, and the call's extras."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"at": moment(record.created), "level": record.levelname, "logger": record.name}
        line |= {"message": record.getMessage()} | _fields(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _blot(_encode(line))


class TextLines(logging.Formatter):
    """Lines for reading: time, level, logger, message, then what a JSON line would hold besides."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{moment(record.created)} {record.levelname:<7} {record.name} {record.getMessage()}{fields}"
        # Whoever may choose a path or a name must not be able to forge a line, or colour a terminal.
        line = line.translate(_CONTROLS)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info).translate(_TRACEBACK_CONTROLS)
        return _blot(line)
