"""Events: checked once, encoded once, read back the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.catalogue import CATALOGUE
from gateway.domain.events import (
    APPENDABLE,
    MAX_DEPTH,
    STATE_TYPES,
    NewEvent,
    TypeFilter,
    check,
    check_appendable,
    decode,
    encode_rest,
    fingerprint,
    format_time,
    parse_time,
    peek_type,
)
from gateway.errors import BadRequest, InvalidBody, UnknownEventType

RUN_ID = "01KAN3C2V0QW8M5T7R9XEDHBYZ"
AT_MS = 1_795_334_400_123

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
ids = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
EXAMPLES: dict[str, dict[str, Any]] = {
    "run.created": {"agent_id": "a", "mode": "direct", "input": None, "actor": {}},
    "run.attempt_started": {"attempt": 2, "supersedes": [3, 9]},
    "run.waiting_for_input": {"prompt": "Go on?"},
    "run.input_received": {"request_id": "q", "content": None, "actor": {}},
    "run.input_closed": {"request_id": "q", "reason": "withdrawn"},
    "run.completed": {"output": None},
    "run.failed": {"error": {"code": "boom", "message": "It broke.", "details": [1]}},
    "step.started": {"step_id": "s", "name": "plan"},
    "step.completed": {"step_id": "s", "output": 1, "duration_ms": 1.5},
    "step.failed": {"step_id": "s", "error": {"code": "boom", "message": ""}},
    "message.delta": {"content": "Hel"},
    "message.completed": {"content": "Hello", "message_id": "m", "role": "assistant"},
    "tool.call": {"call_id": "c", "name": "search", "input": {"q": "x"}},
    "tool.progress": {"call_id": "c", "progress": 0.5},
    "tool.result": {"call_id": "c", "output": [], "status": "ok", "duration_ms": 3},
    "usage.recorded": {"provider": "p", "model": "m", "prompt_tokens": 1, "completion_tokens": 2},
    "checkpoint.created": {"source": "loop", "state": {}},
    "output.set": {"key": "report", "value": None},
    "file.created": {"file_id": "f", "name": "a.txt", "size_bytes": 0, "content_type": "text/plain"},
    "log": {"level": "info", "message": ""},
}
REQUIRED = [
    (name, field.name) for name, shape in CATALOGUE.items() for field in msgspec.structs.fields(shape) if field.required
]


def store(event: NewEvent, seq: int = 17) -> bytes:
    """Return the line that the log would hold."""
    return b'{"seq":%d,"attempt":1,' % seq + encode_rest(event, RUN_ID, AT_MS)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_known_type_is_taken(name: str) -> None:
    """Each type of the catalogue has an example that passes unchanged."""
    event = NewEvent(name, EXAMPLES.get(name, {}))
    checked = check(event)
    assert (checked.type, checked.data) == (event.type, event.data)


@pytest.mark.parametrize(("name", "field"), REQUIRED)
def test_a_missing_field_is_named(name: str, field: str) -> None:
    """A known type without a field that it needs is refused with that field's path."""
    data = {key: value for key, value in EXAMPLES[name].items() if key != field}
    with pytest.raises(InvalidBody) as caught:
        check(NewEvent(name, data))
    assert caught.value.facts["path"] == f"data.{field}"


@pytest.mark.parametrize(
    ("name", "change", "detail"),
    [
        ("tool.call", {"call_id": 3}, "data.call_id: expected str, got int"),
        ("tool.call", {"call_id": ""}, "data.call_id: expected str of length >= 1"),
        ("tool.call", {"call_id": "x" * 129}, "data.call_id: expected str of length <= 128"),
        ("message.delta", {"content": None}, "data.content: expected str, got null"),
        ("run.failed", {"error": {"code": "x"}}, "data.error.message: required"),
        ("run.failed", {"error": "boom"}, "data.error: expected object, got str"),
        ("usage.recorded", {"prompt_tokens": -1}, "data.prompt_tokens: expected int >= 0"),
        ("usage.recorded", {"prompt_tokens": 1.5}, "data.prompt_tokens: expected int, got float"),
        ("usage.recorded", {"prompt_tokens": True}, "data.prompt_tokens: expected int, got bool"),
        ("usage.recorded", {"cost_microusd": 10**13}, "data.cost_microusd: expected int <= 1000000000000"),
        ("usage.recorded", {"credits": 10.0**300}, "data.credits: expected float <= 1000000.0"),
        ("run.attempt_started", {"supersedes": [1]}, "data.supersedes: expected array of length 2, got 1"),
    ],
)
def test_a_wrong_value_is_named(name: str, change: dict[str, Any], detail: str) -> None:
    """A value of another type or size is refused with its path and what was expected."""
    with pytest.raises(InvalidBody) as caught:
        check(NewEvent(name, {**EXAMPLES[name], **change}))
    assert caught.value.detail == detail


@pytest.mark.parametrize("data", [None, [], "x", 1, True])
def test_data_of_a_known_type_is_an_object(data: object) -> None:
    """Anything but an object is refused where a shape is expected."""
    with pytest.raises(InvalidBody, match="data: expected object"):
        check(NewEvent("log", data))


def test_extra_fields_are_kept() -> None:
    """What the catalogue does not know goes into the log as it came."""
    data = {"level": "info", "message": "hi", "mine": {"a": [1, 2.5, None]}}
    assert decode(store(check(NewEvent("log", data)))).data == data


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("tool.cal", "tool.call"),
        ("run.complete", "run.completed"),
        ("Log", "log"),
        ("custom", "custom.*"),
        ("custom.", "custom.*"),
        ("custom.Upper", "custom.*"),
        ("custom.a\n", "custom.*"),
        ('custom.a"', "custom.*"),
        ("custom." + "x" * 200, "custom.*"),
    ],
)
def test_an_unknown_type_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    """A slip of the keyboard is told what was probably meant."""
    with pytest.raises(UnknownEventType) as caught:
        check(NewEvent(name))
    assert caught.value.facts["nearest"] == nearest


@given(st.text())
def test_no_type_breaks_the_check(name: str) -> None:
    """Any text is a known type or refused with some nearest one, briefly."""
    if name not in CATALOGUE:
        with pytest.raises(UnknownEventType) as caught:
            check(NewEvent(name))
        assert caught.value.facts["nearest"]
        assert len(caught.value.detail) < 1500


@given(json_values, ids, ids)
def test_what_was_checked_reads_back_the_same(data: Any, step_id: str | None, parent_id: str | None) -> None:
    """Any JSON survives the log on one line, with its ids."""
    event = check(NewEvent("custom.any-thing_1.x", data, step_id, parent_id))
    line = store(event)
    read = decode(line)
    assert not {b"\n"[0], b"\r"[0]} & set(line)
    assert (read.seq, read.attempt, read.run_id, read.created_at) == (17, 1, RUN_ID, format_time(AT_MS))
    assert (read.type, read.data, read.step_id, read.parent_id) == (event.type, data, step_id, parent_id)
    assert peek_type(line) == event.type


@given(st.dictionaries(st.text(), json_values) | json_values, st.sampled_from(sorted(CATALOGUE)))
def test_no_data_breaks_the_check(data: Any, name: str) -> None:
    """Any JSON as data of any type is taken and can be stored, or refused as an invalid body."""
    try:
        event = check(NewEvent(name, data))
    except InvalidBody:
        return
    assert peek_type(store(event)) == name


def nest(depth: int) -> Any:
    """Return `depth` lists, one in the other."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("\ud800", id="lone surrogate"),
        pytest.param({"\udfff": 1}, id="lone surrogate in a key"),
        pytest.param(["a\ud83d"], id="lone surrogate at the end"),
        pytest.param(10**5000, id="endless digits"),
        pytest.param({"n": [-(10**4300)]}, id="endless digits inside"),
        pytest.param(nest(MAX_DEPTH + 1), id="too deep"),
        pytest.param(nest(100_000), id="far too deep"),
    ],
)
def test_what_json_cannot_carry_is_refused(data: Any) -> None:
    """Lone surrogates, endless digits and endless nesting are refused before they reach the log."""
    with pytest.raises(InvalidBody) as caught:
        check(NewEvent("custom.x", data))
    assert caught.value.facts["path"] == "data"


@pytest.mark.parametrize("data", [2**64, -(2**63) - 1, 10**300, 1.5e308, nest(MAX_DEPTH), [[]] * 5000], ids=range(6))
def test_large_values_are_carried(data: Any) -> None:
    """Integers beyond 64 bits, large floats and wide data are kept exactly."""
    assert decode(store(check(NewEvent("custom.x", data)))).data == data


@pytest.mark.parametrize("field", ["step_id", "parent_id"])
@pytest.mark.parametrize("value", ["", "x" * 129, "\ud800"], ids=["empty", "long", "surrogate"])
def test_a_bad_id_is_refused(field: str, value: str) -> None:
    """Ids are 1 to 128 characters that UTF-8 can write."""
    event = msgspec.structs.replace(NewEvent("custom.x"), **{field: value})
    with pytest.raises(InvalidBody) as caught:
        check(event)
    assert caught.value.facts["path"] == field


@pytest.mark.parametrize(
    "event",
    [
        NewEvent("step.started", {"step_id": "s", "name": "n"}),
        NewEvent("step.started", {"name": "n"}, "s"),
        NewEvent("step.started", {"step_id": "s", "name": "n"}, "s"),
    ],
)
def test_a_step_is_named_in_both_places(event: NewEvent) -> None:
    """A writer names a step where it likes; readers find it in the envelope and in the data."""
    checked = check(event)
    assert (checked.step_id, checked.data) == ("s", {"step_id": "s", "name": "n"})


@given(json_values)
def test_what_was_measured_is_what_is_written(data: Any) -> None:
    """The bytes that `check` leaves are those of the stored line, whatever it had to add to the data."""
    for event in (NewEvent("custom.x", data), NewEvent("step.started", {"name": "n", "more": data}, "s")):
        checked = check(event)
        assert encode_rest(checked, RUN_ID, AT_MS).endswith(b'"data":' + checked.data_json + b"}")
        assert msgspec.json.decode(checked.data_json) == checked.data


def test_a_step_with_two_names_is_refused() -> None:
    """An envelope and data that name different steps are not guessed about."""
    with pytest.raises(InvalidBody, match=r"data\.step_id"):
        check(NewEvent("step.started", {"step_id": "s", "name": "n"}, "other"))


@pytest.mark.parametrize("name", sorted(set(CATALOGUE) - APPENDABLE))
def test_the_gateways_own_events_are_reserved(name: str) -> None:
    """A caller cannot write what only the gateway knows to be true."""
    with pytest.raises(InvalidBody) as caught:
        check_appendable(NewEvent(name))
    assert caught.value.facts["reason"] == "reserved_type"


@pytest.mark.parametrize("name", [*sorted(APPENDABLE), "custom.x"])
def test_everything_else_is_appendable(name: str) -> None:
    """Callers may write all but the gateway's own, among it what ends a run or asks."""
    check_appendable(NewEvent(name))
    assert not name.startswith("run.") or name in STATE_TYPES


def test_fingerprints_ignore_the_order_of_keys() -> None:
    """The same events sent again are recognised, however their objects are ordered."""
    one = [NewEvent("log", {"level": "info", "message": "x"}), NewEvent("custom.y")]
    two = [NewEvent("log", {"message": "x", "level": "info"}), NewEvent("custom.y", {})]
    assert fingerprint(one) == fingerprint(two)
    assert len(fingerprint(one)) == 32


@given(json_values, json_values)
def test_fingerprints_tell_data_apart(one: Any, other: Any) -> None:
    """Two bodies have the same fingerprint only when they are written the same."""
    as_text = [msgspec.json.encode(value, order="deterministic") for value in (one, other)]
    prints = [fingerprint([NewEvent("custom.x", value)]) for value in (one, other)]
    assert (prints[0] == prints[1]) == (as_text[0] == as_text[1])


def test_fingerprints_see_every_field_and_order() -> None:
    """Another type, id or order of events is another body."""
    a, b = NewEvent("custom.a"), NewEvent("custom.b")
    bodies = [
        [a],
        [b],
        [a, b],
        [b, a],
        [],
        [NewEvent("custom.a", {}, "s")],
        [NewEvent("custom.a", {}, None, "s")],
    ]
    assert len({fingerprint(body) for body in bodies}) == len(bodies)


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001
def test_times_survive_their_text(moment: datetime) -> None:
    """A time reads back to the millisecond and looks the same for its whole second."""
    ms = parse_time(moment.isoformat(timespec="milliseconds"))
    text = format_time(ms)
    assert parse_time(text) == ms
    assert text == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-22T08:00:00.123Z", AT_MS),
        ("2026-11-22T09:30:00.1239+01:30", AT_MS),
        ("2026-11-22t08:00:00.123z", AT_MS),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_rfc_3339_is_read(text: str, ms: int) -> None:
    """Offsets and finer fractions come down to UTC milliseconds."""
    assert parse_time(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1795334400",
        "2026-11-22",
        "2026-11-22T08:00:00",
        "2026-02-30T08:00:00Z",
        "2026-11-22T24:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "2026-11-22T08:00:00.123Z ",
        "x" * 1000,
    ],
)
def test_other_times_are_refused(text: str) -> None:
    """A time without an offset, out of the calendar or out of range is a bad request."""
    with pytest.raises(BadRequest) as caught:
        parse_time(text)
    assert len(caught.value.detail) < 500


@pytest.mark.parametrize(
    ("text", "passing", "held"),
    [
        ("message.delta", ["message.delta"], ["message.completed", "message.delta.x"]),
        ("tool.*", ["tool.call", "tool.result"], ["tool", "tools.x"]),
        ("log, custom.a.*", ["log", "custom.a.b"], ["custom.a", "custom.b"]),
        ("*", ["log", "anything.at.all"], []),
        ("log,*", ["run.created"], []),
    ],
)
def test_a_filter_passes_what_it_names(text: str, passing: list[str], held: list[str]) -> None:
    """A reader gets the types it asked for, by name or by family."""
    wanted = TypeFilter.parse(text)
    assert [wanted.passes(name) for name in passing + held] == [True] * len(passing) + [False] * len(held)


def test_equal_filters_are_one() -> None:
    """The order and repetition of patterns make no other filter."""
    one, two = TypeFilter.parse("tool.*,log,log"), TypeFilter.parse("log, tool.*")
    assert one == two
    assert hash(one) == hash(two)


@pytest.mark.parametrize(
    "text", ["", ",", "log,", "tool*", "*.call", "t.*.c", "**", ".log", "Log", "a b", "log," * 5000]
)
def test_a_malformed_filter_is_refused(text: str) -> None:
    """A pattern that could match nothing is a bad request, not an empty stream."""
    with pytest.raises(BadRequest):
        TypeFilter.parse(text)
