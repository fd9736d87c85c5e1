"""Log lines that machines and people can read, and that keep secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from gateway import telemetry


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Give back the root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    telemetry.set_up_access_log("slow", slow_ms=1_000)
    root.handlers[:] = handlers
    root.setLevel(level)


def set_up(form: telemetry.LogForm, level: str = "INFO") -> io.StringIO:
    """Log into a buffer, every answer too."""
    stream = io.StringIO()
    telemetry.set_up_access_log("all", slow_ms=1_000)
    telemetry.set_up_logging(form, level, stream=stream)
    return stream


def test_a_json_line_says_where_it_belongs(root_logger: logging.Logger) -> None:
    """Request, run and the call's own facts are fields."""
    stream = set_up("json")
    token = telemetry.request_id.set("r-1")
    logging.getLogger("gateway.x").warning("took %d ms", 7, extra={"waited_ms": 7, "run_id": "01J"})
    telemetry.request_id.reset(token)
    line = json.loads(stream.getvalue())
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "WARNING",
        "logger": "gateway.x",
        "message": "took 7 ms",
        "request_id": "r-1",
        "run_id": "01J",
        "waited_ms": 7,
    }


def test_a_text_line_says_the_same(root_logger: logging.Logger) -> None:
    """A person reads the fields after the message."""
    stream = set_up("text")
    token = telemetry.run_id.set("01J")
    logging.getLogger("gateway.x").info("claimed", extra={"attempt": 2})
    telemetry.run_id.reset(token)
    assert stream.getvalue().endswith(" INFO    gateway.x claimed run_id=01J attempt=2\n")


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_is_logged(form: telemetry.LogForm, root_logger: logging.Logger) -> None:
    """A failure comes with the place where it happened."""
    stream = set_up(form)
    try:
        int("broken \ud800")
    except ValueError:
        logging.getLogger("gateway.x").exception("failed")
    assert "test_a_traceback_is_logged" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 1 or form == "text"


@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_never_reach_the_log(form: telemetry.LogForm, root_logger: logging.Logger) -> None:
    """Tickets and keys are blotted out, whoever logs them, and the line stays whole."""
    stream = set_up(form)
    line = 'GET "/v1/ws?ticket=abc.def-G&after=3" "/files/x?signature=b64.m-ac" \\"ticket=xyz\\" '
    line += "Bearer gwk_Se-cr_et whsec_c2Vj+/c=="
    logging.getLogger("uvicorn.error").info("%s", line, extra={"url": "/?ticket=hidden"})
    text = stream.getvalue()
    for secret in ("abc", "def-G", "xyz", "b64", "m-ac", "Se-cr_et", "hidden", "c2Vj"):
        assert secret not in text
    assert "after=3" in text
    assert form == "text" or "Bearer gwk_… whsec_…" in json.loads(text)["message"]


def test_a_level_silences_what_is_below_it(root_logger: logging.Logger) -> None:
    """An operator who asks for warnings gets no more."""
    stream = set_up("json", "WARNING")
    telemetry.tell_answer(route="/x", method="GET", path="/x", status=200, took_s=0.1, facts={})
    assert stream.getvalue() == ""


def test_an_answer_is_counted_timed_and_logged(root_logger: logging.Logger) -> None:
    """One answer is one count under its route, one observation and one line without its query."""
    stream = set_up("json")
    labels = {"route": "/t/{id}", "method": "GET"}
    telemetry.observe_answer(status=200, waited_s=0.25, **labels)
    telemetry.tell_answer(path="/t/1", status=200, took_s=0.5, facts={"key_id": "k1", "tenant": None}, **labels)
    assert REGISTRY.get_sample_value("gateway_http_requests_total", labels | {"status": "200"}) == 1
    assert REGISTRY.get_sample_value("gateway_http_answer_seconds_sum", labels) == 0.25
    line = json.loads(stream.getvalue())
    assert (line["message"], line["route"], line["duration_ms"]) == ("GET /t/1 200", "/t/{id}", 500.0)
    assert (line["key_id"], line["status"], "tenant" in line) == ("k1", 200, False)


@pytest.mark.parametrize(
    ("told", "told_of"),
    [
        ("all", {"fast", "slow", "waiting", "broken", "refused"}),
        ("slow", {"slow", "broken"}),
        ("errors", {"broken"}),
        ("off", set()),
    ],
)
def test_an_operator_chooses_which_answers_have_a_line(
    told: telemetry.AccessLog, told_of: set[str], root_logger: logging.Logger
) -> None:
    """All, the slow and the broken, the broken, or none; a claim that waits as it was asked to is not slow."""
    stream = set_up("json")
    telemetry.set_up_access_log(told, slow_ms=500)
    answers = {
        "fast": ("/a", 200, 0.1),
        "slow": ("/a", 200, 0.5),
        "waiting": ("/v1/claims", 200, 20.0),
        "broken": ("/healthz", 503, 0.0),
        "refused": ("/a", 409, 0.0),
        "asked by a machine": ("/healthz", 200, 0.0),
    }
    for name, (route, status, took_s) in answers.items():
        telemetry.tell_answer(route=route, method="GET", path=name, status=status, took_s=took_s, facts={})
    lines = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert {line.split()[1] for line in lines} == told_of


@pytest.mark.parametrize("form", ["json", "text"])
def test_nobody_forges_a_line_or_colours_a_terminal(form: telemetry.LogForm, root_logger: logging.Logger) -> None:
    """Line ends and escapes in what a caller chose are told as text."""
    stream = set_up(form)
    forged = "/x\n2026-01-01 INFO all is well\x1b[31m\u2028\x85\r"
    telemetry.tell_answer(route="/x", method="GET", path=forged, status=200, took_s=0, facts={"run_id": "a\nb"})
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text


def test_setting_up_twice_logs_once(root_logger: logging.Logger) -> None:
    """A second set-up replaces the first, the server's own handlers included."""
    set_up("json")
    stream = set_up("json")
    logging.getLogger("uvicorn.access").info("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_every_metric_is_named_after_the_gateway() -> None:
    """Names are prefixed, so that dashboards find them."""
    metrics = [value for name, value in vars(telemetry).items() if name.isupper() and hasattr(value, "describe")]
    assert len(metrics) > 15
    for metric in metrics:
        assert all(family.name.startswith("gateway_") for family in metric.describe())
