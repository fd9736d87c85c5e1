"""Everything that can be set, from the environment into one frozen value, checked before anything starts.

A field `event_bytes` is the variable `GATEWAY_EVENT_BYTES`. Its type, bounds, default and one sentence for
the documents stand in its declaration and nowhere else. Secrets are never repeated in an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from gateway.errors import GatewayError

PREFIX: Final = "GATEWAY_"
KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
HOUR: Final = 3600
DAY: Final = 24 * HOUR
DECADE: Final = 3650 * DAY

# What the command line's clients read; they share the prefix, but are no settings of a gateway.
CLIENT_VARIABLES: Final = frozenset({"GATEWAY_URL", "GATEWAY_KEY", "GATEWAY_RUN_ID"})
# Kubernetes puts these into every container beside a Service that is named `gateway`.
SERVICE_LINK: Final = re.compile(r"GATEWAY_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_\w+)")


class SettingsError(GatewayError):
    """At least one variable cannot be used; `facts["problems"]` has a sentence for each."""

    code = "invalid_setting"


def within(least: float, most: float, meaning: str) -> Meta:
    """Bound a number from `least` to `most`, both allowed."""
    return Meta(ge=least, le=most, description=meaning)


def words(meaning: str, shape: str = "", pattern: str | None = None, *, secret: bool = False) -> Meta:
    """Describe a text; `shape` says in words what `pattern` demands."""
    return Meta(description=meaning, pattern=pattern, extra={"shape": shape, "secret": secret})


LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
AccessLog: TypeAlias = Literal["all", "slow", "errors", "off"]
Traces: TypeAlias = Literal["off", "otlp"]
LogFormat: TypeAlias = Literal["text", "json"]
Allowance: TypeAlias = Literal["refuse", "allow"]
Fsync: TypeAlias = Literal["always", "everysec"]
ORIGIN: Final = r"^(\*|[a-z][a-z0-9+.-]*://[^/\s,?#]+)\Z"
CORS: Final = words(
    "Origins whose pages may call the API and open its WebSocket.",
    "comma-joined origins such as https://app.example, or *",
)
AGENT: Final = words(
    "Agent of a run that names none.",
    "up to 128 letters, digits, dots, dashes and underscores",
    r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z",
)
REDIS: Final = words(
    "Store to use instead of the embedded one.",
    "a redis://, unix://, redis+cluster:// or redis+sentinel:// URL, rediss… for TLS",
    r"^((rediss?|unix)://\S+"
    r"|rediss?\+cluster://([^\s@/?]*@)?[^\s@/?]+/?(\?\S*)?"
    r"|rediss?\+sentinel://([^\s@/?]*@)?[^\s@/?]+/[^\s/?]+(/\d+)?(\?\S*)?)\Z",
    secret=True,
)
DEV_KEY: Final = words(
    "Fixed development key, honoured on a loopback address only.",
    "1 to 200 visible ASCII characters",
    r"^[!-~]{1,200}\Z",
    secret=True,
)
WEBHOOK_RETRY: Final = words(
    "Rests before an event is told to a webhook again, in seconds; after the last it is given up.",
    "1 to 32 comma-joined numbers below a million",
    r"^(?=.{1,300}\Z)(0|[1-9]\d{0,5})(\.\d{1,3})?(,(0|[1-9]\d{0,5})(\.\d{1,3})?){0,31}\Z",
)
TICKET_SECRET: Final = words(
    "Secret that signs browser tickets; unset, the store keeps one.",
    "at least 32 characters",
    r"^.{32,}\Z",
    secret=True,
)


FILES: Final = words(
    "Where files are kept; unset, in the data directory.",
    "s3://bucket/prefix or file:///directory",
    r"^(s3://[a-z0-9][a-z0-9.-]+(/\S*)?|file:///\S+)\Z",
)
PUBLIC_URL: Final = words(
    "Address by which others reach the gateway, for URLs of files; unset, that of each request.",
    "an http:// or https:// URL",
    r"^https?://[^/\s?#]+(/[^\s?#]*)?\Z",
)
ISSUER: Final = words(
    "Issuer of the tokens (JWT) that are taken beside keys, as `iss` has it; unset, none are.",
    "up to 1,024 visible characters",
    r"^\S{1,1024}\Z",
)
AUDIENCE: Final = words("What their `aud` must name.", "up to 1,024 visible characters", r"^\S{1,1024}\Z")
JWKS: Final = words(
    "Where the issuer's keys are (a JSON Web Key Set).",
    "an https://, http:// or file:/// URL",
    r"^(https?://[^/\s?#@]+(/[^\s#]*)?|file:///\S+)\Z",
)
_CLAIM: Final = ("up to 256 visible characters", r"^\S{1,256}\Z")
CLAIM_OF_TENANT: Final = words("Claim of a token that names its tenant.", *_CLAIM)
CLAIM_OF_SCOPES: Final = words("Claim that lists its scopes, as words or an array.", *_CLAIM)
CLAIM_OF_AGENTS: Final = words("Claim that lists the agents it is bound to; without it, all.", *_CLAIM)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway was told; every value is within its bounds."""

    host: Annotated[str, words("Address to listen on.", "a host name or address", r"^\S+\Z")] = "127.0.0.1"
    port: Annotated[int, within(0, 65_535, "Port to listen on; 0 takes a free one.")] = 8000
    health_port: Annotated[int, within(0, 65_535, "Port for /healthz, /readyz and /metrics alone.")] | None = None
    workers: Annotated[int, within(1, 64, "Processes that serve the port.")] = 1
    cors_origins: Annotated[tuple[Annotated[str, Meta(pattern=ORIGIN)], ...], CORS] = ()
    log_level: Annotated[LogLevel, words("Least severity that is logged.")] = "info"
    log_format: Annotated[LogFormat, words("How a log line is written.")] = "text"
    access_log: Annotated[AccessLog, words("Answers that have a line in the log; slow: errors too.")] = "slow"
    access_log_slow_ms: Annotated[int, within(0, 600_000, "From where on an answer is slow.")] = 1_000
    traces: Annotated[Traces, words("Whether traces are sent, by OTLP as OTEL_EXPORTER_OTLP_ENDPOINT says.")] = "off"
    trace_share: Annotated[float, within(0, 1, "Share of the traces that nobody decided about that is sent.")] = 1
    default_agent: Annotated[str, AGENT] = "default"

    data_dir: Annotated[Path, words("Where the embedded store and files are kept.", "a path")] = Path(".gateway")
    redis_url: Annotated[str, REDIS] | None = None
    embedded_fsync: Annotated[Fsync, words("When the embedded store flushes; everysec can lose a second.")] = "always"
    store_timeout_s: Annotated[float, within(0.1, 60, "Longest wait for an answer of the store.")] = 5
    store_hold_s: Annotated[float, within(0, 300, "Patience of a stream request while the store is away.")] = 30
    sweep_s: Annotated[float, within(0.05, 60, "Pause between looks at the heads of silent runs.")] = 5
    probe_s: Annotated[float, within(0.05, 60, "Pause between proofs that notifications arrive.")] = 2

    dev_key: Annotated[str, DEV_KEY] | None = None
    ticket_secret: Annotated[str, TICKET_SECRET] | None = None
    ticket_ttl_s: Annotated[int, within(1, DAY, "Longest life of a browser ticket.")] = HOUR
    jwt_issuer: Annotated[str, ISSUER] | None = None
    jwt_audience: Annotated[str, AUDIENCE] | None = None
    jwt_jwks: Annotated[str, JWKS] | None = None
    jwt_tenant_claim: Annotated[str, CLAIM_OF_TENANT] = "tenant"
    jwt_scopes_claim: Annotated[str, CLAIM_OF_SCOPES] = "scope"
    jwt_agents_claim: Annotated[str, CLAIM_OF_AGENTS] = "agents"
    jwt_leeway_s: Annotated[int, within(0, 300, "How far the provider's clock may be off.")] = 30
    jwt_http: Annotated[Allowance, words("Whether its keys may be fetched from an http:// URL.")] = "refuse"
    jwt_private: Annotated[Allowance, words("Whether they may be at an address that is not public.")] = "refuse"
    access_recheck_s: Annotated[float, within(0.05, 10, "Pause between looks at an open stream's key.")] = 5

    files_url: Annotated[str, FILES] | None = None
    public_url: Annotated[str, PUBLIC_URL] | None = None
    file_bytes: Annotated[int, within(1, 64 * GIB, "Largest file.")] = GIB
    file_url_s: Annotated[int, within(1, DAY, "How long the URL of a file opens it without a key.")] = 15 * 60
    file_retention_s: Annotated[int, within(1, DECADE, "How long an uploaded file is kept.")] = 30 * DAY

    event_bytes: Annotated[int, within(KIB, 4 * MIB, "Largest event.")] = 256 * KIB
    batch_events: Annotated[int, within(1, 10_000, "Most events in one append.")] = 1_000
    batch_bytes: Annotated[int, within(KIB, 16 * MIB, "Largest append.")] = MIB
    log_events: Annotated[int, within(1, 100_000_000, "Most events in one run's log.")] = 1_000_000
    input_bytes: Annotated[int, within(KIB, MIB, "Largest answer to a question.")] = 32 * KIB
    payload_bytes: Annotated[int, within(KIB, 16 * MIB, "Largest input or output of a run.")] = MIB
    metadata_bytes: Annotated[int, within(256, MIB, "Largest metadata of a run.")] = 16 * KIB
    run_writers: Annotated[int, within(1, 1_024, "Most writers of one run.")] = 64
    stream_runs: Annotated[int, within(1, 256, "Most runs on one multi-run SSE stream.")] = 16
    list_page: Annotated[int, within(1, 1_000, "Most runs on a page.")] = 100
    event_page: Annotated[int, within(1, 10_000, "Most events on a page.")] = 1_000
    scan_records: Annotated[int, within(1, 100_000, "Most records that one page of a list examines.")] = 1_000
    wait_s: Annotated[float, within(0, 600, "Longest wait for a run's end in one request.")] = 60

    connections: Annotated[int, within(16, 1_000_000, "Most open connections; at it, no more are accepted.")] = 20_000
    streams: Annotated[int, within(1, 1_000_000, "Most open streams.")] = 18_000
    tenant_streams: Annotated[int, within(0, 1_000_000, "Of those, most of one tenant; 0 is no limit.")] = 0
    key_streams: Annotated[int, within(0, 1_000_000, "Of those, most of one key and its tickets; 0 is no limit.")] = 0
    socket_runs: Annotated[int, within(1, 4_096, "Most runs that one WebSocket follows.")] = 64
    claims_waiting: Annotated[int, within(1, 1_000_000, "Most claims that wait for work.")] = 10_000
    key_requests_s: Annotated[float, within(0, 1_000_000, "Requests of one key in a second; 0 is no limit.")] = 0
    tenant_requests_s: Annotated[float, within(0, 1_000_000, "Requests of one tenant; 0 is no limit.")] = 0
    key_bytes_s: Annotated[float, within(0, 1_000_000_000_000, "Bytes that one key sends; 0 is no limit.")] = 0
    requests_at_once: Annotated[int, within(1, 10_000, "Most requests that are worked on at once.")] = 128
    requests_waiting: Annotated[int, within(1, 1_000_000, "Most requests of a tenant that wait for that.")] = 2_000
    request_wait_s: Annotated[float, within(0.05, 60, "How long they wait.")] = 10
    bodies_bytes: Annotated[int, within(MIB, 64 * GIB, "Memory for the bodies of all requests.")] = 64 * MIB
    rings_bytes: Annotated[int, within(MIB, 64 * GIB, "Memory for the latest events of all runs.")] = 256 * MIB
    unsent_bytes: Annotated[int, within(MIB, 64 * GIB, "Memory for what readers have not taken yet.")] = 256 * MIB

    keepalive_s: Annotated[float, within(0.05, 300, "Pause between signs of life on a silent stream.")] = 15
    retry_ms: Annotated[int, within(0, 60_000, "Pause before a browser reconnects.")] = 2_000
    linger_ms: Annotated[int, within(0, 1_000, "Least pause between two writes to a reader.")] = 0
    ring_bytes: Annotated[int, within(4 * KIB, GIB, "Memory for the latest events of a run.")] = 512 * KIB
    ring_entries: Annotated[int, within(16, 1_000_000, "Most of a run's latest events in memory.")] = 2_048
    chunk_bytes: Annotated[int, within(KIB, 16 * MIB, "Most that one write hands to a reader.")] = 64 * KIB
    feed_entries: Annotated[int, within(10, 10_000_000, "Status changes that a feed keeps.")] = 10_000

    lease_s: Annotated[float, within(0.1, HOUR, "How long a claim holds without a heartbeat.")] = 30
    cancel_grace_s: Annotated[float, within(0, HOUR, "How long a holder may take to confirm a cancel.")] = 10
    start_timeout_s: Annotated[float, within(0.1, DAY, "How long a direct run may wait to start.")] = 600
    idempotency_s: Annotated[int, within(1, 30 * DAY, "How long an idempotency key is remembered.")] = DAY
    log_retention_s: Annotated[int, within(1, DECADE, "How long a finished run keeps its log.")] = 7 * DAY
    record_retention_s: Annotated[int, within(1, DECADE, "How long it keeps its record.")] = 30 * DAY
    webhook_timeout_s: Annotated[float, within(0.1, 60, "Longest wait for a webhook's receiver.")] = 10
    webhook_retry_s: Annotated[str, WEBHOOK_RETRY] = "5,300,1800,7200,18000,36000,50400,72000,86400"
    webhook_at_once: Annotated[int, within(1, 1_024, "Webhooks that a process tells at once.")] = 32
    webhook_host_at_once: Annotated[int, within(1, 1_024, "Of those, most that lead to one host.")] = 8
    webhook_http: Annotated[Allowance, words("Whether webhooks may go to http:// URLs.")] = "refuse"
    webhook_private: Annotated[Allowance, words("Whether they may go to addresses that are not public.")] = "refuse"
    readiness_lead_s: Annotated[float, within(0, 60, "Time from red readiness to the end of accepting.")] = 1
    drain_s: Annotated[float, within(0, 600, "Window over which a drain closes its readers.")] = 5


# Of each pair the first may not be more than the second.
ORDERED: Final = (
    ("event_bytes", "batch_bytes"),
    ("event_bytes", "ring_bytes"),
    ("input_bytes", "event_bytes"),
    ("ring_bytes", "rings_bytes"),
    ("batch_bytes", "bodies_bytes"),
    ("payload_bytes", "bodies_bytes"),
    ("streams", "connections"),
    ("list_page", "scan_records"),
    ("log_retention_s", "record_retention_s"),
)

TOGETHER: Final = ("jwt_issuer", "jwt_audience", "jwt_jwks")


def load(environ: Mapping[str, str]) -> Settings:
    """Read every setting from `environ`; an empty variable counts as unset.

    Raises:
        SettingsError: names every variable that cannot be used, its value and what is allowed.
    """
    fields = {variable(field.name): field for field in msgspec.structs.fields(Settings)}
    values: dict[str, Any] = {}
    problems = list(_unknown(environ, fields))
    for name, field in fields.items():
        given = environ.get(name, "").strip()
        if given:
            try:
                values[field.name] = _convert(given, field)
            except msgspec.ValidationError:
                problems.append(f"{name}={_shown(given, field)} is not allowed: {allowed(field)}.")
    settings = Settings(**values)
    problems += _disordered(settings)
    problems += _incomplete(settings)
    if problems:
        raise SettingsError("\n".join(problems), problems=problems)
    return settings


def variable(name: str) -> str:
    """Return the environment variable of the setting `name`."""
    return PREFIX + name.upper()


def allowed(field: FieldInfo) -> str:
    """Say in words what a setting may be."""
    kind, meta = _declared(field)
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if meta.ge is None:
        return str(_extra(meta)["shape"])
    noun = "a whole number" if kind is int else "a number"
    return f"{noun} from {_number(meta.ge)} to {_number(meta.le)}"


def render_table() -> str:
    """Return all settings as a Markdown table, for the documents."""
    rows = ["| variable | default | allowed | meaning |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(Settings):
        _, meta = _declared(field)
        cells = (f"`{variable(field.name)}`", _default(field), allowed(field), meta.description or "")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _declared(field: FieldInfo) -> tuple[Any, Meta]:
    kind, meta = get_args(_annotated(field))
    return kind, meta


def _annotated(field: FieldInfo) -> Any:
    """Return the field's type without `| None`: no text stands for None, absence does."""
    return field.type if get_origin(field.type) is Annotated else get_args(field.type)[0]


def _extra(meta: Meta) -> Mapping[str, Any]:
    return meta.extra or {}


def _convert(given: str, field: FieldInfo) -> Any:
    kind, _ = _declared(field)
    if kind is Path:
        return Path(given)
    parts = [part.strip() for part in given.split(",")] if get_origin(kind) is tuple else given
    return msgspec.convert(parts, _annotated(field), strict=False)


def _shown(given: str, field: FieldInfo) -> str:
    _, meta = _declared(field)
    return f"({len(given)} characters, not shown)" if _extra(meta).get("secret") else repr(given)


def _unknown(environ: Mapping[str, str], known: Mapping[str, FieldInfo]) -> Iterator[str]:
    for name in sorted(environ):
        ours = name.startswith(PREFIX) and not SERVICE_LINK.fullmatch(name)
        if not ours or name in known or name in CLIENT_VARIABLES:
            continue
        names = [known_name.removeprefix(PREFIX) for known_name in known]
        nearest = difflib.get_close_matches(name.removeprefix(PREFIX), names, n=1)
        yield f"{name} is no setting" + (f"; did you mean {PREFIX}{nearest[0]}?" if nearest else ".")


def _disordered(settings: Settings) -> Iterator[str]:
    for less, more in ORDERED:
        low, high = getattr(settings, less), getattr(settings, more)
        if low > high:
            yield f"{variable(less)}={low} is more than {variable(more)}={high}, which it may not be."


def _incomplete(settings: Settings) -> Iterator[str]:
    """Tell which of the settings that work together only are missing."""
    given = [name for name in TOGETHER if getattr(settings, name) is not None]
    missing = [variable(name) for name in TOGETHER if name not in given]
    if given and missing:
        yield f"{variable(given[0])} needs {' and '.join(missing)} beside it."


def _number(bound: float | None) -> str:
    return f"{bound:,}"


def _default(field: FieldInfo) -> str:
    if field.default is None or field.default == ():
        return "unset"
    value = field.default
    if field.name.endswith("_bytes"):
        return f"{value} ({value // MIB} MiB)" if value % MIB == 0 else f"{value} ({value // KIB} KiB)"
    return f"`{value}`"
