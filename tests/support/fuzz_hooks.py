"""Hooks of the fuzzer: requests that reach further, and none that takes for ever."""

from __future__ import annotations

import os
import re
from typing import Any
from uuid import uuid4

import schemathesis

RUNS = "FUZZED_RUNS"
"""The variable that names runs, comma-joined, whose ids stand in for made-up ones."""

AGENT = "a"
"""The agent of these runs."""

_KEY = re.compile(r"[!-~]([ -~]{0,254}[!-~])?")
_REAL = re.compile(r"[0-9A-Za-z-]{26,36}")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?")
_WAIT_S = 0.05


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Change what is sent where its generator could not know better."""
    headers, query, path = case.headers or {}, case.query or {}, case.path_parameters or {}
    if _KEY.fullmatch(str(headers.get("Idempotency-Key", ""))):
        # Used twice it would mean a repeat.
        headers["Idempotency-Key"] = str(uuid4())
    if str(query.get("stream", "")).lower() in ("true", "1"):
        query["stream"] = "false"
    if case.operation.path.endswith("/wait"):
        query = case.query = {"timeout_s": _WAIT_S, **query}
    if _NUMBER.fullmatch(str(query.get("timeout_s", ""))):
        query["timeout_s"] = round(min(float(query["timeout_s"]), _WAIT_S), 3)
    if isinstance(case.body, dict | list):
        case.body = _spell(case.body)
    if isinstance(case.body, dict) and type(case.body.get("wait_s")) in (int, float):
        case.body["wait_s"] = min(case.body["wait_s"], _WAIT_S)
    if case.meta is not None and case.meta.generation.mode.is_positive:
        _name_a_run(path)


def _spell(value: Any) -> Any:
    """Spell whole numbers as JSON writers do: `16`, where the generator means the same by `16.0`."""
    if isinstance(value, dict):
        return {key: _spell(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_spell(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name_a_run(path: dict[str, Any]) -> None:
    runs = [run_id for run_id in os.environ.get(RUNS, "").split(",") if run_id]
    for name in ("run_id", "id"):
        if runs and name in path and not _REAL.fullmatch(str(path[name])):
            path[name] = runs[len(str(path[name])) % len(runs)]
    if runs and path.keys() == {"agent_id", "run_id"}:
        # Such a run is there for its own agent only.
        path["agent_id"] = AGENT
