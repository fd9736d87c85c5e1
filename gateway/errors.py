"""What can go wrong, as one tree; facts are fields, and no error knows HTTP.

GatewayError
├── BadRequest            malformed: not JSON, a bad query parameter, a bad id
├── InvalidBody           well-formed, but not what this operation takes
│   └── IdempotencyMismatch · DigestMismatch
├── HeadTooLarge          a request's head beyond all need
├── TooLarge              over a limit in bytes or entries
├── Unauthenticated
├── Forbidden
│   └── SignatureInvalid · UrlExpired
├── NotFound
├── RangeUnsatisfiable    a part of a file beyond its end
├── Conflict              the state says no
│   ├── IllegalTransition · SeqConflict · WriterGap · WriterStale · Fenced
│   ├── AlreadyAnswered · InputRequired · NoSuchQuestion · AmbiguousQuestion
│   ├── LogFull · TooManyWriters · TooManySubscriptions
│   └── KeyEnded · Contended
├── LogExpired            the record stays, its log is gone
├── ProviderUnavailable   the identity provider's keys cannot be had
├── StoreUnavailable      the store cannot be asked; `outcome` says what is known
├── TooManyRequests       a key or tenant asks for too much; `retry_after_s` says when to come back
│   └── TooManyStreams
├── Overloaded            this process has no room at present
└── Draining              this process is about to stop
"""

from __future__ import annotations

from typing import Any, ClassVar


class GatewayError(Exception):
    """Anything the gateway refuses or fails to do, with the facts a caller can act on.

    `detail` is one sentence for people; `facts` are JSON values for programs.
    """

    code: ClassVar[str] = "error"

    def __init__(self, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class BadRequest(GatewayError):
    """The request cannot be read: malformed JSON, query parameter, cursor or id."""

    code = "bad_request"


class InvalidBody(GatewayError):
    """The request can be read, but a value in it is not allowed."""

    code = "invalid_body"


class UnknownEventType(InvalidBody):
    """An event's type is in no catalogue; `facts["nearest"]` may name the one meant."""

    code = "unknown_event_type"


class UnsupportedMode(InvalidBody):
    """A run was asked for in a mode that this gateway does not run."""

    code = "unsupported_mode"


class IdempotencyMismatch(InvalidBody):
    """An idempotency key or writer seq was used before, with another body."""

    code = "idempotency_mismatch"


class DigestMismatch(InvalidBody):
    """What came is not what its sender says it is; `sha256` is that of what came, in hex."""

    code = "digest_mismatch"


class HeadTooLarge(GatewayError):
    """The head of a request is larger than any request needs."""

    code = "head_too_large"


class TooLarge(GatewayError):
    """A body, event or batch is over its limit."""

    code = "too_large"


class Unauthenticated(GatewayError):
    """No key or ticket, or one that is unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(GatewayError):
    """The key is good, its scopes or bounds do not reach this."""

    code = "forbidden"


class OriginRefused(Forbidden):
    """A page of an origin that is not allowed wants to open a WebSocket."""

    code = "origin_refused"


class SignatureInvalid(Forbidden):
    """A URL was not signed here, or was changed since."""

    code = "signature_invalid"


class UrlExpired(Forbidden):
    """A signed URL's time is over; `facts["expired_at_s"]` says since when."""

    code = "url_expired"


class RangeUnsatisfiable(GatewayError):
    """A part was asked for that begins beyond the end; `facts["size_bytes"]` says where that is."""

    code = "range_not_satisfiable"


class NotFound(GatewayError):
    """No such thing for this caller."""

    code = "not_found"


class MethodNotAllowed(GatewayError):
    """The path exists, this method of it does not."""

    code = "method_not_allowed"


class Conflict(GatewayError):
    """The present state does not allow this."""

    code = "conflict"


class IllegalTransition(Conflict):
    """A run was asked to enter a status that cannot follow its present one."""

    code = "invalid_state"


class SeqConflict(Conflict):
    """The log's head is not where the writer expected it."""

    code = "seq_conflict"


class WriterGap(Conflict):
    """A writer skipped a number; `facts["expected"]` is the one to send."""

    code = "writer_gap"


class WriterStale(Conflict):
    """A writer sent a number that is older than its last one."""

    code = "writer_stale"


class Fenced(Conflict):
    """The writer's attempt or lease is over."""

    code = "fenced"


class AlreadyAnswered(Conflict):
    """A question has been answered; `facts["seq"]` is the winning answer's event."""

    code = "already_answered"


class QuestionClosed(Conflict):
    """A question was closed without an answer."""

    code = "question_closed"


class InputRequired(Conflict):
    """The run waits for an answer; resuming it needs one."""

    code = "input_required"


class AmbiguousQuestion(Conflict):
    """Several questions are open and the answer names none."""

    code = "request_id_required"


class NoSuchQuestion(NotFound):
    """The run never asked that."""

    code = "unknown_request"


class LogFull(Conflict):
    """The run's log has reached its limit of events."""

    code = "log_full"


class TooManyWriters(Conflict):
    """The run has as many writers as it may."""

    code = "too_many_writers"


class TooManySubscriptions(Conflict):
    """A WebSocket follows as many runs as it may."""

    code = "too_many_subscriptions"


class KeyEnded(Conflict):
    """A key that does not work any more, or has a successor, was to be rotated."""

    code = "key_ended"


class Contended(Conflict):
    """Too many changes to one run at once; safe to try again."""

    code = "contended"


class LogExpired(GatewayError):
    """The run's log has been removed after its retention; the record stays."""

    code = "log_expired"


class ProviderUnavailable(GatewayError):
    """A token cannot be judged: nothing is known of the identity provider's keys."""

    code = "provider_unavailable"


class StoreUnavailable(GatewayError):
    """The store did not answer. `facts["outcome"]` is `not_written` or `unknown`."""

    code = "store_unavailable"


class TooManyRequests(GatewayError):
    """A key or tenant has asked for more than it may; `facts["limit"]` names the setting that says how much."""

    code = "too_many_requests"


class TooManyStreams(TooManyRequests):
    """As many streams are open as may be; whoever asks for another is held until one ends."""

    code = "too_many_streams"


class Overloaded(GatewayError):
    """This process has no room for the request at present; another may have."""

    code = "overloaded"


class Draining(GatewayError):
    """This process is stopping and takes no more of these."""

    code = "draining"
