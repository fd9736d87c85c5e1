"""The house of the dialects: mounts, refusals in a dialect's words, typed queries, status words, projections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.domain.events import Event, TypeFilter
from gateway.domain.lifecycle import ALL, PERMITTED, TERMINAL, Action, Status, illegal
from gateway.edge.frames import body_of
from gateway.edge.problems import IdentifiedRequests, describe_problem, exception_handlers
from gateway.edge.query import decode_query, parse_query
from gateway.entry.dialect import About, Dialect, Operation
from gateway.entry.projection import Frame, Projection
from gateway.entry.requests import answer, read_query
from gateway.entry.statuses import StatusWords
from gateway.errors import BadRequest, InputRequired, NotFound
from gateway.store.log import Entry
from tests.dialects.stateless import check_stateless, logs, shown

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Look(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query of every kind."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    status: Literal["on", "off"] | None = None
    since: Moment | None = None
    tag: list[str] = []
    deep: bool = False
    dim: float | None = None
    mood: Annotated[tuple[Literal["glad", "mad"], ...], msgspec.Meta(min_length=1)] | None = None
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=3)] | None = None


class Needy(msgspec.Struct, frozen=True):
    """A query with a parameter that must be there; others are ignored."""

    lamp: str


async def look(request: Request) -> Response:
    """`GET /lamps`: Say what was asked for."""
    return answer(read_query(request, Look))


async def lose(_request: Request) -> Response:
    """`POST /lamps/{id}:lose`: Refuse."""
    raise NotFound("There is no lamp.", lamp="l1")


async def name(request: Request) -> Response:
    """`GET /lamps/{id}`: Say which lamp."""
    return answer(request.path_params["id"])


async def burst(_request: Request) -> Response:
    """`POST /lamps`: Fail."""
    raise ZeroDivisionError


def tell(problem: Mapping[str, Any]) -> tuple[int, object]:
    """Word a refusal as lamps do."""
    return 418 if problem["status"] == 404 else problem["status"], {"lamp_says": problem["code"]}


LAMPS = Dialect(
    name="lamps",
    title="Lamps",
    description="Lamps, and what becomes of them.",
    tell=tell,
    refusal=dict[str, str],
    at_root=True,
    operations=[
        Operation("GET", "/lamps", look, About(query=Look, answers={200: Look})),
        Operation("POST", "/lamps", burst),
        Operation("POST", "/lamps/{id}:lose", lose, About(refusals=[404])),
        Operation("GET", "/lamps/{id}", name, About(answers={200: str}, refusals=[404])),
    ],
)


async def plain(_request: Request) -> Response:
    """Answer for the rest of the application."""
    raise NotFound("There is nothing.")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that speaks lamps beside something else."""
    app = Starlette(
        routes=[*LAMPS.mounts(), Route("/plain", plain)],
        middleware=[Middleware(IdentifiedRequests)],
        exception_handlers=exception_handlers(),
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


@pytest.mark.parametrize("prefix", ["/compat/lamps", ""])
async def test_a_dialect_is_served_below_its_prefix_and_where_it_asks_for_it_at_the_root(
    client: httpx.AsyncClient, prefix: str
) -> None:
    """The same operations answer at both places."""
    found = await client.get(f"{prefix}/lamps", params={"limit": 3})
    assert (found.status_code, found.json()["limit"]) == (200, 3)
    lost = await client.post(f"{prefix}/lamps/l1:lose")
    assert (lost.status_code, lost.json()) == (418, {"lamp_says": "not_found"})


async def test_everything_below_a_prefix_is_refused_in_the_words_of_its_dialect(client: httpx.AsyncClient) -> None:
    """Unknown paths, other methods, bad parameters and the gateway's own failures too, each with its request id."""
    told = {
        "GET /compat/lamps/nowhere": (418, "not_found"),
        "GET /compat/lamps/lamps/": (418, "not_found"),
        "GET /compat/lamps/": (418, "not_found"),
        "GET /compat/lamps/%0Alamps%0A": (418, "not_found"),
        "PUT /compat/lamps/lamps": (405, "method_not_allowed"),
        "PUT /lamps": (405, "method_not_allowed"),
        "GET /lamps?limit=11": (400, "bad_request"),
        "POST /lamps": (500, "internal"),
    }
    for asked, (status, code) in told.items():
        method, _, url = asked.partition(" ")
        answered = await client.request(method, url)
        assert (answered.status_code, answered.json()) == (status, {"lamp_says": code}), asked
        assert answered.headers["x-request-id"], asked
    assert (await client.put("/compat/lamps/lamps")).headers["allow"] == "GET, HEAD, POST"


async def test_the_first_path_that_matches_says_which_methods_there_are(client: httpx.AsyncClient) -> None:
    """What is an action of a path is not taken for the name of something else; HEAD is as good as GET."""
    answered = await client.get("/compat/lamps/lamps/l1:lose")
    assert (answered.status_code, answered.headers["allow"]) == (405, "POST")
    assert (await client.get("/compat/lamps/lamps/l1")).json() == "l1"
    assert (await client.head("/compat/lamps/lamps")).status_code == 200


async def test_what_no_dialect_knows_is_told_as_before(client: httpx.AsyncClient) -> None:
    """A dialect at the root takes only its own paths, and its words reach no further."""
    for url in ("/nowhere", "/plain", "/compat/other"):
        answered = await client.get(url)
        assert answered.status_code == 404
        assert answered.headers["content-type"] == "application/problem+json"


def test_a_query_is_read_into_the_types_of_its_struct() -> None:
    """Numbers, words, times with a lost plus, lists repeated or joined, flags, and defaults for what is left out."""
    query = parse_query(b"limit=7&status=on&since=2026-11-22T08:00:00+01:00&tag=a&tag=b,c&deep=true")
    read = decode_query(query, Look)
    assert (read.limit, read.status, read.tag, read.deep) == (7, "on", ["a", "b", "c"], True)
    assert read.since is not None
    assert read.since.isoformat() == "2026-11-22T08:00:00+01:00"
    assert decode_query({}, Look) == Look()


class Told(msgspec.Struct, frozen=True):
    """A query whose parameters are described."""

    who: Annotated[str, msgspec.Meta(max_length=9, description="Who asks.")] | None = None
    many: Annotated[int | None, msgspec.Meta(description="How many.")] = None


def test_what_is_said_of_a_parameter_does_not_change_how_it_is_read() -> None:
    """A text may be the word null; a number is an integer as any reader spells it."""
    assert decode_query(parse_query(b"who=null&many=7"), Told) == Told("null", 7)
    for many in ("null", "7.0", "1e1"):
        with pytest.raises(BadRequest) as refusal:
            decode_query({"many": [many]}, Told)
        assert refusal.value.facts["parameter"] == "many"


@pytest.mark.parametrize(
    ("query", "parameter", "allowed"),
    [
        (b"limit=0", "limit", "an integer from 1 to 10"),
        (b"limit=x", "limit", "an integer from 1 to 10"),
        (b"limit=5.0", "limit", "an integer from 1 to 10"),
        (b"limit=null", "limit", "an integer from 1 to 10"),
        (b"status=null", "status", "one of off, on"),
        (b"status=dim", "status", "one of off, on"),
        (b"dim=nan", "dim", "a number"),
        (b"dim=1e3", "dim", "a number"),
        (b"deep=perhaps", "deep", "true or false"),
        (b"mood=sad,glad", "mood", "any of glad, mad"),
        (b"mood=", "mood", "any of glad, mad"),
        (b"name=", "name", "text of 1 to 3 characters"),
        (b"name=four", "name", "text of 1 to 3 characters"),
        (b"since=yesterday", "since", "an RFC 3339 time such as 2026-11-22T08:00:00Z, with its offset or Z"),
        (b"since=0.5", "since", "an RFC 3339 time such as 2026-11-22T08:00:00Z, with its offset or Z"),
        (b"since=2026-11-22", "since", "an RFC 3339 time such as 2026-11-22T08:00:00Z, with its offset or Z"),
        (b"since=2026-11-22T08:00:00", "since", "an RFC 3339 time such as 2026-11-22T08:00:00Z, with its offset or Z"),
    ],
)
def test_a_bad_parameter_is_refused_with_what_is_allowed(query: bytes, parameter: str, allowed: str) -> None:
    """The refusal says which parameter is wrong and what it may be, in words and not in those of a decoder."""
    with pytest.raises(BadRequest) as refusal:
        decode_query(parse_query(query), Look)
    assert (refusal.value.facts["parameter"], refusal.value.facts["allowed"]) == (parameter, allowed)
    assert refusal.value.detail.startswith(parameter)


def test_a_parameter_given_twice_is_refused_by_name() -> None:
    """Neither of two values is the one."""
    with pytest.raises(BadRequest, match="limit is given 2 times"):
        decode_query(parse_query(b"limit=1&limit=2"), Look)


def test_unknown_and_missing_parameters_are_told() -> None:
    """A struct decides whether a parameter that it does not name is refused or ignored."""
    with pytest.raises(BadRequest) as refusal:
        decode_query({"lamp": ["x"]}, Look)
    assert refusal.value.facts["allowed"] == ["deep", "dim", "limit", "mood", "name", "since", "status", "tag"]
    assert decode_query({"lamp": ["x"], "more": ["y"]}, Needy) == Needy("x")
    with pytest.raises(BadRequest) as refusal:
        decode_query({}, Needy)
    assert refusal.value.facts["parameter"] == "lamp"


def test_status_words_are_total_in_both_directions() -> None:
    """Every status has a word, every word selects all that show as it, and a table with a hole is refused."""
    words = StatusWords({status: "off" if status is Status.FAILED else "on" for status in ALL})
    assert words.known == ("on", "off")
    assert words.select("off") == {Status.FAILED}
    assert words.select(*words.known) == set(ALL)
    assert all(status in words.select(words.of(status)) for status in ALL)
    with pytest.raises(ValueError, match="no word for"):
        StatusWords({Status.FAILED: "off"})


@pytest.mark.parametrize("action", Action)
def test_a_refused_action_is_told_in_the_words_of_the_dialect(action: Action) -> None:
    """No other status is named, and none as permitted that the run shows already."""
    words = StatusWords({status: "off" if status in TERMINAL else "on" for status in ALL})
    for status in set(ALL) - PERMITTED[action]:
        message, facts = words.retell(describe_problem(illegal(action, status), "r1"))
        assert facts.keys() == {"action", "current_status", "permitted"}
        assert facts["current_status"] == words.of(status)
        assert facts["permitted"] in (["on"], ["off"], [])
        assert facts["current_status"] not in facts["permitted"]
        assert message.startswith(f"A run that is {words.of(status)} cannot {action.replace('_', ' ')}")
        assert not any(str(named) in message for named in ALL)


def test_what_is_not_about_a_status_is_told_as_it_is() -> None:
    """The sentence, and the facts without what every problem document has."""
    words = StatusWords(dict.fromkeys(ALL, "on"))
    problem = describe_problem(BadRequest("No.", parameter="p"), "r1")
    assert words.retell(problem) == ("No.", {"parameter": "p"})
    problem = describe_problem(InputRequired("Answer.", current_status="waiting_for_input", request_ids=["q"]), "r1")
    assert words.retell(problem) == ("Answer.", {"current_status": "on", "request_ids": ["q"]})


def project(event: Event) -> Frame | None:
    """Show every second event, the longer ones by name."""
    return None if event.seq % 2 else Frame({"n": event.seq}, "long" if len(event.type) > 12 else None)


@given(logs(), st.integers(0, 12), st.sampled_from([None, TypeFilter.parse("message.*,run.*")]))
def test_a_projected_stream_may_be_cut_anywhere(entries: list[Entry], cut: int, types: TypeFilter | None) -> None:
    """Frames of a part and of the rest are the frames of the whole."""
    check_stateless(Projection("lamps", project, types), entries, cut)


def test_a_projected_frame_has_its_cursor_and_its_name_and_no_control_frames_around_it() -> None:
    """What native says in named frames is a comment at most; readers of the same projection share what is encoded."""
    line = b'{"seq":2,"attempt":1,"type":"run.completed","run_id":"r","created_at":"x","data":{}}'
    projection = Projection("lamps", project)
    assert shown(projection, [Entry(2, 9, line)]) == b'id: 2-9\nevent: long\ndata: {"n":2}\n\n'
    assert projection.control("stream.end", {"status": "completed"}) == []
    (gap,) = projection.control("stream.gap", {"first_seq": 3})
    assert body_of(gap)["body"] == b': stream.gap {"first_seq":3}\n'
    assert projection.key == Projection("lamps", project).key != Projection("lanterns", project).key
