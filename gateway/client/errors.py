"""What can go wrong for a caller of the gateway, as one tree.

ClientError
├── ConnectionLost       the gateway could not be reached for as long as was allowed
├── ProtocolError        what answers there does not speak the gateway's protocol
├── EventTooLarge        an event is over the limit; it was not sent
├── FileDamaged          a file arrived as something else than what is stored
├── SourceChanged        a file ended before its size while it was sent
└── ApiError             the gateway refused
    ├── BadRequest 400 · Unauthenticated 401 · Forbidden 403 · NotFound 404
    ├── Conflict 409
    │   └── InvalidState · Fenced · AlreadyAnswered
    ├── LogExpired 410 · TooLarge 413 · InvalidBody 422
    └── Unavailable 429, 502, 503, 504
"""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """Anything that kept a call from doing what was asked."""


class ConnectionLost(ClientError):
    """The gateway could not be reached, or went away, until the caller's patience ended."""


class ProtocolError(ClientError):
    """The answer is not the gateway's protocol: a wrong address, or a proxy that rewrites."""


class EventTooLarge(ClientError):
    """An event's JSON is over the limit in bytes; it was not queued."""


class FileDamaged(ClientError):
    """A file's bytes are not those that the gateway has the digest of; what was fetched is not to be used."""


class SourceChanged(ClientError):
    """A file became shorter while it was being sent; the gateway keeps nothing of it."""


class ApiError(ClientError):
    """The gateway refused.

    `detail` is one sentence for people, `code` the stable word for programs, `facts` whatever else
    the problem document said (`expected`, `permitted`, `seq` …), `request_id` what to quote to an
    operator, `retry_after_s` when the gateway wants to be asked again, if it said.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str,
        facts: dict[str, Any] | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.detail = detail
        self.status = status
        self.code = code
        self.facts = facts or {}
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class BadRequest(ApiError):
    """The request cannot be read: malformed JSON, query parameter, cursor or id."""


class Unauthenticated(ApiError):
    """No key or ticket, or one that is unknown, expired or revoked."""


class Forbidden(ApiError):
    """The key is good, its scopes or bounds do not reach this."""


class NotFound(ApiError):
    """No such thing for this key."""


class Conflict(ApiError):
    """The present state does not allow this."""


class InvalidState(Conflict):
    """The run's status does not allow this; `facts` has the status and the permitted ones."""


class Fenced(Conflict):
    """The attempt that this writer wrote for is over."""


class AlreadyAnswered(Conflict):
    """Another answer counted; `facts["seq"]` is its event."""


class LogExpired(ApiError):
    """The run's log was removed after its retention; its record is still there."""


class TooLarge(ApiError):
    """A body, event or batch is over its limit."""


class InvalidBody(ApiError):
    """The request can be read, but a value in it is not allowed."""


class Unavailable(ApiError):
    """The gateway or its store cannot answer now; `facts["outcome"]` says what is known of a write."""
