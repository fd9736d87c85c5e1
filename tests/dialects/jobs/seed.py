"""The job system's own examples: its curl lines as its page has them, and what it says they answer."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from typing import Any

import httpx

from gateway.dialects.jobs.project import WORDS

CURL = r"""
curl -X GET "http://localhost:8080/v1/runs?project_id=string"
curl -X GET "http://localhost:8080/v1/runs/dlq?project_id=string"
curl -X POST "http://localhost:8080/v1/runs/bulk-cancel" \ -H "Content-Type: application/json" \ -d '{}'
curl -X GET "http://localhost:8080/v1/runs/string"
curl -X DELETE "http://localhost:8080/v1/runs/string"
curl -X POST "http://localhost:8080/v1/runs/string/replay"
curl -X POST "http://localhost:8080/v1/runs/string/dlq-replay"
curl -X POST "http://localhost:8080/v1/runs/bulk-dlq-replay" \ -H "Content-Type: application/json" \ -d '{}'
curl -X POST "http://localhost:8080/v1/runs/bulk-cancel-all?project_id=string" \ -H "Content-Type: application/json" \ -d '{}'
curl -X POST "http://localhost:8080/v1/runs/bulk-replay" \ -H "Content-Type: application/json" \ -d '{ "run_ids": [ "string" ] }'
curl -X GET "http://localhost:8080/v1/runs/string/stream"
curl -X GET "http://localhost:8080/v1/runs/string/children"
curl -X GET "http://localhost:8080/v1/runs/string/events"
curl -X GET "http://localhost:8080/v1/runs/string/checkpoints"
curl -X GET "http://localhost:8080/v1/runs/string/usage"
curl -X GET "http://localhost:8080/v1/runs/string/tool-calls"
curl -X GET "http://localhost:8080/v1/runs/string/outputs"
curl -X GET "http://localhost:8080/v1/runs/string/debug-bundle"
curl -X POST "http://localhost:8080/v1/runs/string/debug" \ -H "Content-Type: application/json" \ -d '{}'
curl -X GET "http://localhost:8080/v1/runs/string/lineage"
curl -X GET "http://localhost:8080/v1/runs/string/dependency-status"
curl -X DELETE "http://localhost:8080/v1/runs/string/idempotency-key"
curl -X POST "http://localhost:8080/v1/runs/string/reschedule" \ -H "Content-Type: application/json" \ -d '{ "scheduled_at": "2019-08-24T14:15:22Z" }'
curl -X POST "http://localhost:8080/v1/runs/string/pause"
curl -X POST "http://localhost:8080/v1/runs/string/resume"
curl -X POST "http://localhost:8080/v1/runs/string/restart" \ -H "Content-Type: application/json" \ -d '{}'
curl -X GET "http://localhost:8080/v1/runs/string/stream/chunks"
curl -X GET "http://localhost:8080/v1/runs/string/state"
"""  # noqa: E501 - as they stand

LINES = CURL.strip().splitlines()

AT = "2019-08-24T14:15:22Z"
STRINGS = {"property1": "string", "property2": "string"}
RUN: dict[str, Any] = {
    "id": "string",
    "job_id": "string",
    "project_id": "string",
    "status": "delayed",
    "attempt": 0,
    "payload": {},
    "result": {},
    "metadata": STRINGS,
    "error": "string",
    "triggered_by": "string",
    "scheduled_at": AT,
    "started_at": AT,
    "finished_at": AT,
    "heartbeat_at": AT,
    "next_retry_at": AT,
    "expires_at": AT,
    "parent_run_id": "string",
    "priority": 0,
    "idempotency_key": "string",
    "job_version": 0,
    "workflow_step_run_id": "string",
    "max_attempts_override": 0,
    "timeout_secs_override": 0,
    "retry_backoff": "string",
    "retry_initial_delay_secs": 0,
    "retry_max_delay_secs": 0,
    "execution_trace": {
        "queue_wait_ms": 0,
        "dequeue_ms": 0,
        "connect_ms": 0,
        "ttfb_ms": 0,
        "transfer_ms": 0,
        "total_ms": 0,
        "dispatch_ms": 0,
    },
    "debug_mode": True,
    "continuation_of": "string",
    "lineage_depth": 0,
    "tags": STRINGS,
    "job_version_id": "string",
    "created_by": "string",
    "batch_id": "string",
    "concurrency_key": "string",
    "created_at": AT,
}
EVENT = {
    "id": "string",
    "run_id": "string",
    "type": "string",
    "level": "string",
    "message": "string",
    "data": {},
    "created_at": AT,
}
CHECKPOINT = {"id": "string", "run_id": "string", "sequence": 0, "source": "string", "state": {}, "created_at": AT}
USAGE = {
    "id": "string",
    "run_id": "string",
    "provider": "string",
    "model": "string",
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "total_tokens": 0,
    "cost_microusd": 0,
    "created_at": AT,
}
TOOL_CALL = {
    "id": "string",
    "run_id": "string",
    "tool_name": "string",
    "input": {},
    "output": {},
    "duration_ms": 0,
    "status": "string",
    "created_at": AT,
}
OUTPUT = {"id": "string", "run_id": "string", "output_key": "string", "schema": {}, "value": {}, "created_at": AT}
BUNDLE = {
    "run": RUN,
    "events": [EVENT],
    "checkpoints": [CHECKPOINT],
    "usage": [USAGE],
    "tool_calls": [TOOL_CALL],
    "outputs": [OUTPUT],
}
CANCELLED = {
    "results": [{"id": "string", "status": "string", "error": "string"}],
    "total": 0,
    "canceled": 0,
    "failed": 0,
}
DEPENDENCY = {
    "id": "string",
    "job_id": "string",
    "depends_on_job_id": "string",
    "condition": "string",
    "created_at": AT,
}
DEPENDENCIES = {
    "run_id": "string",
    "job_id": "string",
    "status": "delayed",
    "dependencies": [DEPENDENCY],
    "dependencies_satisfied": True,
}
STATE = {"run_id": "string", "status": "delayed", "attempt": 0, "state": {}, "pending": [], "updated_at": AT}
RESET = {"status": "string", "run_id": "string"}
REPLAYED = {"replayed": [RUN], "count": 0}


def find_line(method: str, path: str) -> str:
    """Return the curl line of an operation, `string` standing for what it takes."""
    (line,) = [line for line in LINES if f'-X {method} "http://localhost:8080{path}"' in line]
    return line


def read_line(line: str, base: str, *, run_id: str, project_id: str) -> httpx.Request:
    """Return the request that a curl line makes, its address and its placeholders replaced."""
    words = shlex.split(line.replace(" \\ ", " "))
    assert words[:2] == ["curl", "-X"]
    method, address, *options = words[2:]
    headers, body = {}, None
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option == "-H":
            name, _, said = value.partition(": ")
            headers[name] = said
        else:
            assert option == "-d"
            body = value.replace("string", run_id)
    address = address.replace("http://localhost:8080", base)
    address = address.replace("project_id=string", f"project_id={project_id}").replace("/string", f"/{run_id}")
    return httpx.Request(method, address, headers=headers, content=body)


def check_like(value: Any, sample: Any, path: str = "$") -> None:
    """Check that a value has the shape of the page's sample: every field, no other, of its type or null."""
    if value is None:
        return
    if sample is STRINGS:
        assert all(isinstance(one, str) for one in value.values()), path
    elif sample == {}:
        assert isinstance(value, dict), path
    elif isinstance(sample, dict):
        assert value.keys() == sample.keys(), path
        for name, one in sample.items():
            check_like(value[name], one, f"{path}.{name}")
    elif isinstance(sample, list):
        assert isinstance(value, list), path
        for index, one in enumerate(value if sample else ()):
            check_like(one, sample[0], f"{path}[{index}]")
    elif sample == AT:
        assert value.endswith("Z"), path
        datetime.fromisoformat(value)
    elif sample == "delayed":
        assert value in WORDS.known, path
    else:
        assert type(value) is type(sample), f"{path} is {json.dumps(value)}"
