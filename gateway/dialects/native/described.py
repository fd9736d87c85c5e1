"""The native API described: for every route what it takes and answers."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from starlette.routing import BaseRoute, Route

from gateway.dialects.native import answers as a
from gateway.dialects.native import answers_beside as b
from gateway.dialects.native import parameters as p
from gateway.dialects.native import schedule_answers as schedules
from gateway.dialects.native import streamed, wire
from gateway.dialects.native import webhook_answers as hooks
from gateway.domain import fold_state
from gateway.entry.operations import About, Operation, Raw

LINES = Raw("application/x-ndjson")
MADE = {"run_id": "/id"}
GONE = (400, 404, 410)
CHANGED = (400, 404, 409, 413, 422)


def acted(body: object, answer: object = a.Run) -> About:
    """Describe an action on a run."""
    return About(body=body, answers={200: answer}, refusals=CHANGED)


def fold(kind: object, summary: str) -> About:
    """Describe a fold that is a list."""
    return About(query=p.PageOfFold, answers={200: a.FoldPage[kind]}, refusals=GONE, summary=summary)  # type: ignore[valid-type]


CREATED = About(
    query=p.Create,
    body=wire.CreateRun,
    answers={201: a.Run, 200: streamed.RUN},
    refusals=CHANGED,
    headers=("traceparent",),
    makes=MADE,
)
COPIED = About(body=wire.Act, answers={201: a.Run}, refusals=CHANGED, makes=MADE)
LISTED = About(query=p.Find, answers={200: a.Page[a.Run]}, refusals=(400,))
FAMILY = About(query=p.Paging, answers={200: a.Page[a.Run]}, refusals=(400, 404))
STREAMED = About(query=p.FollowRun, answers={200: streamed.RUN, 204: None}, refusals=GONE)
BULK_MATCHING = About(
    query=p.Act, body=wire.BulkCancelAll, answers={200: (a.BulkDone, LINES)}, refusals=(400, 413, 422)
)
BULK = (400, 413, 422)

UPLOADED = ("application/octet-stream", "multipart/form-data")
UPLOAD = (400, 413, 422)
FETCHED = About(
    query=p.Ticketed,
    answers={200: Raw("application/octet-stream"), 206: Raw("application/octet-stream"), 304: None},
    refusals=(400, 404, 416),
    headers=("Range",),
)

TABLE: dict[str, About] = {
    "POST /v1/runs": CREATED,
    "POST /v1/threads/{thread_id}/runs": CREATED,
    "POST /v1/runs/batch": About(
        body=wire.NewBatch[wire.CreateRun], answers={200: a.BatchDone}, refusals=BULK, headers=("traceparent",)
    ),
    "GET /v1/runs": LISTED,
    "GET /v1/threads/{thread_id}/runs": LISTED,
    "GET /v1/runs/dlq": About(query=p.FindDead, answers={200: a.Page[a.Run]}, refusals=(400,)),
    "POST /v1/runs/bulk-cancel": About(body=wire.BulkCancel, answers={200: a.BulkDone}, refusals=BULK),
    "POST /v1/runs/bulk-replay": About(body=wire.BulkReplay, answers={200: a.BulkDone}, refusals=BULK),
    "POST /v1/runs/bulk-cancel-all": BULK_MATCHING,
    "POST /v1/runs/bulk-dlq-replay": About(
        query=p.Act, body=wire.BulkDlqReplay, answers={200: (a.BulkDone, LINES)}, refusals=BULK
    ),
    "GET /v1/runs/{run_id}": About(query=p.Include, answers={200: a.Run}, refusals=GONE),
    "DELETE /v1/runs/{run_id}": acted(wire.Cancel),
    "GET /v1/runs/{run_id}/wait": About(query=p.Wait, answers={200: a.Run}, refusals=(400, 404)),
    "GET /v1/runs/{run_id}/children": FAMILY,
    "GET /v1/runs/{run_id}/lineage": FAMILY,
    "POST /v1/runs/{run_id}/purge": acted(wire.Purge, (a.Run, a.Purged)),
    "POST /v1/runs/{run_id}/retry": COPIED,
    "POST /v1/runs/{run_id}/replay": COPIED,
    "POST /v1/runs/{run_id}:cancel": acted(wire.Cancel),
    "POST /v1/runs/{run_id}/cancel": acted(wire.Cancel),
    "POST /v1/runs/{run_id}/pause": acted(wire.Act),
    "POST /v1/runs/{run_id}/resume": acted(wire.Act),
    "POST /v1/runs/{run_id}/restart": acted(wire.Restart),
    "POST /v1/runs/{run_id}/dlq-replay": acted(wire.Restart),
    "POST /v1/runs/{run_id}/debug": acted(wire.DebugMode),
    "POST /v1/runs/{run_id}/reschedule": acted(wire.Reschedule),
    "POST /v1/runs/{run_id}/input": acted(wire.Answer, a.Answered),
    "DELETE /v1/runs/{run_id}/idempotency-key": acted(wire.Act),
    "GET /v1/runs/{run_id}/dependency-status": About(answers={200: a.DependencyStatus}, refusals=(400, 404)),
    "GET /v1/requests": About(query=p.Inbox, answers={200: a.Page[a.InboxItem]}, refusals=(400,)),
    "POST /v1/runs/{run_id}/events": About(
        body=wire.Append,
        other_bodies=("application/x-ndjson",),
        answers={200: (a.Written, LINES)},
        refusals=CHANGED,
        headers=("Lease",),
    ),
    "GET /v1/runs/{run_id}/events": About(
        query=p.FollowEvents, answers={200: (a.EventPage, streamed.RUN), 204: None}, refusals=GONE
    ),
    "GET /v1/runs/{run_id}/stream": STREAMED,
    "GET /v1/runs/{run_id}/stream/chunks": About(
        query=p.FollowChunks, answers={200: streamed.RUN, 204: None}, refusals=GONE
    ),
    "GET /v1/stream": About(query=p.FollowMany, answers={200: streamed.MANY, 204: None}, refusals=GONE),
    "GET /v1/threads/{thread_id}/stream": About(
        query=p.FollowThread, answers={200: streamed.THREAD}, refusals=(400, 404)
    ),
    "GET /v1/feed": About(query=p.Follow, answers={200: streamed.FEED}, refusals=(400,)),
    "GET /v1/runs/{run_id}/steps": fold(fold_state.Step, "the run's steps"),
    "GET /v1/runs/{run_id}/tool-calls": fold(fold_state.ToolCall, "the tools it called"),
    "GET /v1/runs/{run_id}/messages": fold(fold_state.Message, "what it said"),
    "GET /v1/runs/{run_id}/usage": About(
        query=p.PageOfFold, answers={200: a.UsagePage}, refusals=GONE, summary="what it used, and the sum of that"
    ),
    "GET /v1/runs/{run_id}/outputs": fold(fold_state.Output, "its named outputs"),
    "GET /v1/runs/{run_id}/checkpoints": fold(fold_state.Checkpoint, "its checkpoints"),
    "GET /v1/runs/{run_id}/files": fold(fold_state.File, "the files it made"),
    "GET /v1/runs/{run_id}/history": fold(fold_state.Change, "its audit trail"),
    "GET /v1/runs/{run_id}/snapshot": About(answers={200: a.RunSnapshot}, refusals=GONE, summary="all of it, folded"),
    "GET /v1/runs/{run_id}/state": About(
        answers={200: a.LastState}, refusals=GONE, summary="where a worker that goes on would go on from"
    ),
    "GET /v1/runs/{run_id}/debug-bundle": About(
        answers={200: a.DebugBundle}, refusals=GONE, summary="everything somebody needs who looks for what went wrong"
    ),
    "POST /v1/claims": About(body=wire.Claim, answers={200: b.Claims}, refusals=(400, 413, 422)),
    "GET /v1/queues": About(query=p.PageByName, answers={200: a.Page[b.Queue]}, refusals=(400,)),
    "POST /v1/runs/{run_id}/heartbeat": About(
        body=wire.KeepUp, answers={200: b.Beat}, refusals=CHANGED, headers=("Lease",)
    ),
    "POST /v1/runs/{run_id}/release": About(
        body=wire.Release, answers={200: a.Run}, refusals=CHANGED, headers=("Lease",)
    ),
    "GET /v1/schedules": About(query=p.PageByName, answers={200: a.Page[schedules.Schedule]}, refusals=(400,)),
    "PUT /v1/schedules/{schedule_id}": About(
        body=wire.PutSchedule,
        answers={200: schedules.Schedule, 201: schedules.Schedule},
        refusals=CHANGED,
        makes={"schedule_id": "/id"},
    ),
    "GET /v1/schedules/{schedule_id}": About(answers={200: schedules.Schedule}, refusals=(400, 404)),
    "DELETE /v1/schedules/{schedule_id}": About(answers={200: schedules.RemovedSchedule}, refusals=(400, 404)),
    "POST /v1/schedules/{schedule_id}/trigger": About(
        body=wire.TriggerSchedule, answers={201: a.Run}, refusals=CHANGED, makes=MADE
    ),
    "GET /v1/runs/{run_id}/webhooks": About(answers={200: a.Page[hooks.RunHook]}, refusals=(400, 404)),
    "GET /v1/runs/{run_id}/webhook-deliveries": About(answers={200: a.Page[hooks.DeliveryTry]}, refusals=(400, 404)),
    "POST /v1/runs/{run_id}/webhooks/{hook_id}/redeliver": About(
        body=wire.Redeliver, answers={200: hooks.RunHook}, refusals=(400, 404, 413, 422)
    ),
    "GET /v1/agents": About(query=p.PageByName, answers={200: a.Page[b.Agent]}, refusals=(400,)),
    "PUT /v1/agents/{agent_id}": About(
        body=wire.PutAgent, answers={200: b.Agent, 201: b.Agent}, refusals=CHANGED, makes={"agent_id": "/id"}
    ),
    "GET /v1/agents/{agent_id}": About(query=p.Version, answers={200: b.Agent}, refusals=(400, 404)),
    "POST /v1/files": About(
        query=p.NameFile,
        other_bodies=UPLOADED,
        answers={201: b.File},
        refusals=UPLOAD,
        headers=("Repr-Digest",),
        makes={"file_id": "/file_id"},
    ),
    "GET /v1/files": About(query=p.FindFiles, answers={200: a.Page[b.File]}, refusals=(400, 404)),
    "GET /v1/files/{file_id}": About(query=p.Ticketed, answers={200: b.LinkedFile}, refusals=(400, 404)),
    "GET /v1/files/{file_id}/content": FETCHED,
    "DELETE /v1/files/{file_id}": About(answers={200: b.Removed}, refusals=(400, 404)),
    "POST /v1/runs/{run_id}/files": About(
        query=p.NameOutput,
        other_bodies=UPLOADED,
        answers={201: b.OutputFile},
        refusals=(*UPLOAD, 404, 409),
        headers=("Lease", "Repr-Digest"),
    ),
    "GET /files/{file_id}": msgspec.structs.replace(FETCHED, query=p.Signed),
    "GET /v1/readers": About(query=p.FindReaders, answers={200: b.Readers}, refusals=(400, 404)),
    "POST /v1/tickets": About(body=wire.CreateTicket, answers={201: b.Ticket}, refusals=(400, 404, 413, 422)),
    "POST /v1/keys": About(
        body=wire.CreateKey, answers={201: b.NewKey, 200: b.NewKey}, refusals=(400, 413, 422), makes={"key_id": "/id"}
    ),
    "POST /v1/keys/{key_id}/rotate": About(
        query=p.Tenant, body=wire.RotateKey, answers={201: b.NewKey, 200: b.NewKey}, refusals=(400, 404, 409, 413, 422)
    ),
    "GET /v1/keys": About(query=p.Tenant, answers={200: a.Page[b.Key]}, refusals=(400,)),
    "DELETE /v1/keys/{key_id}": About(query=p.Tenant, answers={200: b.Key}, refusals=(400, 404)),
}


def describe(routes: Iterable[BaseRoute]) -> list[Operation]:
    """Return the operations of routes, those that the table describes."""
    found = []
    for route in routes:
        if isinstance(route, Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                about = TABLE.get(f"{method} {route.path}")
                found += [] if about is None else [Operation(method, route.path, route.endpoint, about)]
    return found
