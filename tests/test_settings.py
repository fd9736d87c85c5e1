"""What the environment may say, and what is answered when it says something else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.settings import Settings, SettingsError, allowed, load, render_table, variable

FIELDS = msgspec.structs.fields(Settings)
BOUNDED = [field for field in FIELDS if " from " in allowed(field)]


def refusals(environ: dict[str, str]) -> list[str]:
    """Return the problems for which `environ` is refused."""
    with pytest.raises(SettingsError) as refused:
        load(environ)
    problems: list[str] = refused.value.facts["problems"]
    assert refused.value.detail == "\n".join(problems)
    return problems


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing has to be set."""
    assert load({}) == Settings()


def test_every_default_is_allowed() -> None:
    """Writing every default out into the environment changes nothing."""
    written = {variable(f.name): str(f.default) for f in FIELDS if f.default not in (None, ())}
    assert load(written) == Settings()


def test_a_variable_sets_its_field() -> None:
    """Each kind of value is read from text: number, path, word, list, URL."""
    settings = load(
        {
            "GATEWAY_LEASE_S": "2.5",
            "GATEWAY_PORT": "0",
            "GATEWAY_DATA_DIR": "/srv/gateway",
            "GATEWAY_EMBEDDED_FSYNC": "everysec",
            "GATEWAY_CORS_ORIGINS": "https://a.example, http://localhost:3000",
            "GATEWAY_REDIS_URL": "unix:///run/store.sock",
        }
    )
    assert (settings.lease_s, settings.port, settings.data_dir) == (2.5, 0, Path("/srv/gateway"))
    assert settings.embedded_fsync == "everysec"
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")
    assert settings.redis_url == "unix:///run/store.sock"


def test_an_empty_variable_counts_as_unset() -> None:
    """A compose file that passes an unset variable through does no harm."""
    assert load({"GATEWAY_REDIS_URL": "", "GATEWAY_PORT": "  "}) == Settings()


@pytest.mark.parametrize("field", BOUNDED, ids=lambda field: field.name)
@pytest.mark.parametrize("value", ["-1", "1e30", "nan", "inf", "many", "null", "true"])
def test_a_number_out_of_bounds_is_refused_by_name_value_and_range(
    field: msgspec.structs.FieldInfo, value: str
) -> None:
    """The error says which variable, what it was, and from where to where it may go."""
    name = variable(field.name)
    assert refusals({name: value}) == [f"{name}={value!r} is not allowed: {allowed(field)}."]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_HOST", "a b"),
        ("GATEWAY_LOG_LEVEL", "loud"),
        ("GATEWAY_EMBEDDED_FSYNC", "no"),
        ("GATEWAY_DEFAULT_AGENT", "../x"),
        ("GATEWAY_CORS_ORIGINS", "https://a.example/path"),
        ("GATEWAY_CORS_ORIGINS", "a.example"),
    ],
)
def test_a_word_that_is_not_allowed_is_refused(name: str, value: str) -> None:
    """Texts are checked as numbers are."""
    (problem,) = refusals({name: value})
    assert problem.startswith(f"{name}={value!r} is not allowed: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_REDIS_URL", "http://user:hunter2@store"),
        ("GATEWAY_DEV_KEY", "hunter2 hunter2"),
        ("GATEWAY_TICKET_SECRET", "hunter2"),
    ],
)
def test_a_secret_is_never_repeated(name: str, value: str) -> None:
    """An error about a secret ends up in logs, so it tells its length only."""
    (problem,) = refusals({name: value})
    assert problem.startswith(f"{name}=({len(value)} characters, not shown)")
    assert "hunter2" not in problem


def test_all_problems_are_told_at_once() -> None:
    """Nobody has to start the gateway three times to learn of three mistakes."""
    problems = refusals({"GATEWAY_PORT": "x", "GATEWAY_LEASE_S": "0", "GATEWAY_WROKERS": "2"})
    assert len(problems) == 3


def test_an_unknown_variable_is_refused_with_the_nearest_known_one() -> None:
    """A misspelt setting is not silently ignored."""
    assert refusals({"GATEWAY_KEEP_ALIVE_S": "5"}) == [
        "GATEWAY_KEEP_ALIVE_S is no setting; did you mean GATEWAY_KEEPALIVE_S?"
    ]


def test_an_unknown_variable_near_to_none_is_still_refused() -> None:
    """Without anything similar the sentence just ends."""
    assert refusals({"GATEWAY_XYZZY": "5"}) == ["GATEWAY_XYZZY is no setting."]


def test_variables_of_others_are_let_be() -> None:
    """Other programs' variables, our clients' and Kubernetes' service links are none of ours."""
    others = ("PATH", "GATEWAY_URL", "GATEWAY_RUN_ID", "GATEWAY_SERVICE_HOST", "GATEWAY_PORT_8080_TCP_ADDR")
    assert load(dict.fromkeys(others, "x")) == Settings()


def test_a_bound_above_another_that_contains_it_is_refused() -> None:
    """An event larger than any batch could never be appended, whatever each bound allows by itself."""
    assert refusals({"GATEWAY_BATCH_BYTES": "2048"}) == [
        "GATEWAY_EVENT_BYTES=262144 is more than GATEWAY_BATCH_BYTES=2048, which it may not be."
    ]


def test_the_table_for_the_documents_has_every_setting() -> None:
    """A setting cannot be added without its line in the documents."""
    rows = render_table().splitlines()[2:]
    assert len(rows) == len(FIELDS)
    assert "| `GATEWAY_RUN_WRITERS` | `64` | a whole number from 1 to 1,024 | Most writers of one run. |" in rows
    assert all(row.count("|") == 5 and "||" not in row.replace(" ", "") for row in rows)
