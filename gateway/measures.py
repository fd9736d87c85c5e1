"""What the settings come to: the limits and rules of each part, in the units that it counts in."""

from __future__ import annotations

from urllib.parse import urlsplit

from gateway.edge.limits import Limits, Rates
from gateway.edge.turns import Turns
from gateway.entry.places import PlaceLimits
from gateway.entry.services import Bounds
from gateway.hub.channel import ChannelLimits
from gateway.service.deliveries import DeliveryRules
from gateway.service.journal import Retention
from gateway.service.outbound import UrlRules
from gateway.service.runs import RunLimits
from gateway.service.tokens import TokenRules
from gateway.settings import Settings
from gateway.store.runs import Limits as LogLimits


def in_ms(duration_s: float) -> int:
    """Return seconds as milliseconds, rounded down."""
    return int(duration_s * 1000)


def bounds(settings: Settings) -> Bounds:
    """Return how large what a request sends or asks for may be."""
    return Bounds(
        body_bytes=2 * settings.payload_bytes,
        batch_bytes=settings.batch_bytes,
        batch_events=settings.batch_events,
        event_bytes=settings.event_bytes,
        metadata_bytes=settings.metadata_bytes,
        list_page=settings.list_page,
        event_page=settings.event_page,
        wait_s=settings.wait_s,
        stream_runs=settings.stream_runs,
        ticket_ttl_s=settings.ticket_ttl_s,
        default_agent=settings.default_agent,
        file_bytes=settings.file_bytes,
        socket_runs=settings.socket_runs,
    )


def limits(settings: Settings) -> Limits:
    """Return the limits of requests, at the beginning of their counting."""
    rates = Rates(settings.key_requests_s, settings.tenant_requests_s, settings.key_bytes_s)
    turns = Turns(settings.requests_at_once, waiting=settings.requests_waiting, wait_s=settings.request_wait_s)
    return Limits(rates, turns, bodies_bytes=settings.bodies_bytes)


def place_limits(settings: Settings) -> PlaceLimits:
    """Return how many streams may be open."""
    return PlaceLimits(settings.streams, settings.tenant_streams, settings.key_streams)


def channel_limits(settings: Settings) -> ChannelLimits:
    """Return what is kept of one log, and written at once of it."""
    return ChannelLimits(
        ring_entries=settings.ring_entries, ring_bytes=settings.ring_bytes, chunk_bytes=settings.chunk_bytes
    )


def log_limits(settings: Settings) -> LogLimits:
    """Return how long a log may become, and how many write to it."""
    return LogLimits(log_events=settings.log_events, writers=settings.run_writers)


def run_limits(settings: Settings) -> RunLimits:
    """Return how large a run may be when it begins, and what it is given of time."""
    return RunLimits(
        payload_bytes=settings.payload_bytes,
        metadata_bytes=settings.metadata_bytes,
        start_timeout_ms=in_ms(settings.start_timeout_s),
        lease_ms=in_ms(settings.lease_s),
        idempotency_ms=in_ms(settings.idempotency_s),
    )


def retention(settings: Settings) -> Retention:
    """Return how long an ended run is kept."""
    return Retention(in_ms(settings.log_retention_s), in_ms(settings.record_retention_s))


def delivery_rules(settings: Settings) -> DeliveryRules:
    """Return how webhooks are told."""
    return DeliveryRules(
        delays_ms=tuple(in_ms(float(rest_s)) for rest_s in settings.webhook_retry_s.split(",")),
        timeout_ms=in_ms(settings.webhook_timeout_s),
        at_once=settings.webhook_at_once,
        at_once_a_host=settings.webhook_host_at_once,
    )


def webhook_urls(settings: Settings) -> UrlRules:
    """Return where webhooks may lead."""
    return UrlRules(settings.webhook_http == "allow", settings.webhook_private == "allow")


def provider_urls(settings: Settings) -> UrlRules:
    """Return where an identity provider's keys may be."""
    return UrlRules(settings.jwt_http == "allow", settings.jwt_private == "allow")


def token_rules(settings: Settings) -> TokenRules | None:
    """Return what an identity provider's tokens must say; None where none are taken."""
    if settings.jwt_issuer is None or settings.jwt_audience is None:
        return None
    return TokenRules(
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        tenant_claim=settings.jwt_tenant_claim,
        scopes_claim=settings.jwt_scopes_claim,
        agents_claim=settings.jwt_agents_claim,
        leeway_s=settings.jwt_leeway_s,
    )


def socket_origins(settings: Settings) -> set[str]:
    """Return the origins whose pages may open a WebSocket, besides those that a request's `Host` names."""
    if settings.public_url is None:
        return set(settings.cors_origins)
    at_home = urlsplit(settings.public_url)
    return {*settings.cors_origins, f"{at_home.scheme}://{at_home.netloc}"}
