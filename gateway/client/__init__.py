"""The Python client: read a run's log live, write a run, steer it, send and fetch files.

It speaks the public HTTP API only and imports nothing else of the gateway.
"""

from gateway.client.backoff import Backoff
from gateway.client.client import Client
from gateway.client.environment import DEFAULT_URL, find_key, find_url
from gateway.client.errors import (
    AlreadyAnswered,
    ApiError,
    BadRequest,
    ClientError,
    Conflict,
    ConnectionLost,
    EventTooLarge,
    Fenced,
    Forbidden,
    InvalidBody,
    InvalidState,
    LogExpired,
    NotFound,
    ProtocolError,
    SourceChanged,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from gateway.client.models import (
    Answered,
    Appended,
    Event,
    FeedItem,
    File,
    Gap,
    Pending,
    Question,
    Reset,
    Run,
    Snapshot,
    StreamItem,
    Ticket,
)
from gateway.client.writer import Writer

__all__ = [
    "DEFAULT_URL",
    "AlreadyAnswered",
    "Answered",
    "ApiError",
    "Appended",
    "Backoff",
    "BadRequest",
    "Client",
    "ClientError",
    "Conflict",
    "ConnectionLost",
    "Event",
    "EventTooLarge",
    "FeedItem",
    "Fenced",
    "File",
    "Forbidden",
    "Gap",
    "InvalidBody",
    "InvalidState",
    "LogExpired",
    "NotFound",
    "Pending",
    "ProtocolError",
    "Question",
    "Reset",
    "Run",
    "Snapshot",
    "SourceChanged",
    "StreamItem",
    "Ticket",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Writer",
    "find_key",
    "find_url",
]
