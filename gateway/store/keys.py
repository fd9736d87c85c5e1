"""Every key of the store: its name, its hash tag, its lifetime.

Families of hash tags keep what one script touches in one cluster slot: the run, its tenant, a queue of the tenant, a
timer partition.

    key                                  lifetime
    gw:{<run>}:run :log :writers         until the run is purged or its retention ends (timers)
    gw:{<run>}:hooks :deliveries         until the run is purged or its retention ends
    gw:{<run>}:idem:<hash>               `idempotency_s` after the write
    gw:{t:<tenant>}:…  indexes           an entry leaves with its run; lists drop entries without a record
    gw:{t:<tenant>}:idem:<hash>          `idempotency_s` after the reservation
    gw:{t:<tenant>}:gone:<run>           `idempotency_s` after the purge
    gw:{t:<tenant>}:gone:<file>          `idempotency_s` after the deletion
    gw:{t:<tenant>}:file:<file>          until the file is deleted, its run removed, or its age reached
    gw:{t:<tenant>}:files :aging         an entry leaves with its file, of :aging sooner
    gw:{t:<tenant>}:filesof:<run>        an entry leaves with its file
    gw:{t:<tenant>}:swept                an hour after the search for forgotten bytes of files
    gw:{t:<tenant>}:used:<ticket>        until a minute after the ticket has expired
    gw:{t:<tenant>}:clock                for ever, one a tenant
    gw:{t:<tenant>}:feed :feedlog        for ever, trimmed to `feed_entries`
    gw:{t:<tenant>}:queuenames :agents :agentids :agentversions   for ever, an entry a queue, an agent, a version of one
    gw:{t:<tenant>}:hooksecrets          an entry a webhook of an agent, until its definition has it no more
    gw:{t:<tenant>}:schedules :scheduleids   an entry a schedule, until it is removed
    gw:{q:<tenant>:<queue>}:…            an entry leaves with its run; `used` and `limits` hold one for each agent
    gw:{timers:<nn>}                     for ever, an entry leaves when nothing is due any more
    gw:{access}:keys :secret :tenants    for ever
    gw:{access}:reconciling              seconds after the reconciler that has the turn is gone
"""

from __future__ import annotations

import zlib
from hashlib import blake2b

PARTITIONS = 16


def record(run_id: str) -> str:
    """HASH: the run's record."""
    return f"gw:{{{run_id}}}:run"


def log(run_id: str) -> str:
    """STREAM: the run's events, entry ids `{seq}-{tag}`, one field `e`."""
    return f"gw:{{{run_id}}}:log"


def writers(run_id: str) -> str:
    """HASH: a writer's name → `attempt number first_seq last_seq fingerprint` of its last append."""
    return f"gw:{{{run_id}}}:writers"


def hook_states(run_id: str) -> str:
    """HASH: webhook id → `cursor tries due_ms busy_until_ms holder knocked state`, as `lua/begin_delivery.lua` says."""
    return f"gw:{{{run_id}}}:hooks"


def deliveries(run_id: str) -> str:
    """LIST: the last tries to tell the run's webhooks, newest first."""
    return f"gw:{{{run_id}}}:deliveries"


def run_idempotency(run_id: str, digest: str) -> str:
    """STRING: `first_seq last_seq fingerprint` of the write made under an idempotency key."""
    return f"gw:{{{run_id}}}:idem:{digest}"


def events_channel(run_id: str) -> str:
    """Pub/sub channel of the run's appends."""
    return f"gw:{{{run_id}}}:ev"


def _tenant(tenant: str, rest: str) -> str:
    return f"gw:{{t:{tenant}}}:{rest}"


def tenant_idempotency(tenant: str, digest: str) -> str:
    """STRING: `run_id created_us fingerprint` reserved under an idempotency key."""
    return _tenant(tenant, f"idem:{digest}")


def gone(tenant: str, name: str) -> str:
    """STRING: the mark of who removed the run or file, while its id may still be held by an idempotency key."""
    return _tenant(tenant, f"gone:{name}")


def used_ticket(tenant: str, ticket_id: str) -> str:
    """STRING: the connection that a ticket for one connection has opened."""
    return _tenant(tenant, f"used:{ticket_id}")


def file(tenant: str, file_id: str) -> str:
    """STRING: a file's record, as JSON."""
    return _tenant(tenant, f"file:{file_id}")


def files(tenant: str) -> str:
    """ZSET: every file of the tenant, by name, which is by time: a file's id begins with it."""
    return _tenant(tenant, "files")


def files_of(tenant: str, run_id: str) -> str:
    """ZSET: the files that a run made, by name."""
    return _tenant(tenant, f"filesof:{run_id}")


def aging_files(tenant: str) -> str:
    """ZSET: files that are removed at a certain age unless a run has them, by name."""
    return _tenant(tenant, "aging")


def swept(tenant: str) -> str:
    """STRING: who looks for forgotten bytes of the tenant's files, so that others need not."""
    return _tenant(tenant, "swept")


def tenant_clock(tenant: str) -> str:
    """STRING: creation time of the tenant's last run, in µs."""
    return _tenant(tenant, "clock")


def moving(tenant: str) -> str:
    """ZSET: `run_id change_id` of status changes under way, by the time they began, in ms."""
    return _tenant(tenant, "moving")


def applied(tenant: str) -> str:
    """HASH: run id → `revision status` that the status indexes show."""
    return _tenant(tenant, "applied")


def asking(tenant: str) -> str:
    """ZSET: runs with open questions, by creation time in µs."""
    return _tenant(tenant, "asking")


def index(tenant: str, name: str, value: str) -> str:
    """ZSET: runs with this value, by creation time in µs; long values are hashed."""
    if len(value) > 64:
        value = blake2b(value.encode(), digest_size=16).hexdigest()
    return _tenant(tenant, f"by:{name}:{value}")


def status_index(tenant: str, status: str) -> str:
    """ZSET: runs in this status, by creation time in µs."""
    return index(tenant, "status", status)


def all_runs(tenant: str) -> str:
    """ZSET: every run of the tenant, by creation time in µs."""
    return _tenant(tenant, "runs")


def feed_record(tenant: str) -> str:
    """HASH: head and first seq of the tenant's feed, the fields of a run's record."""
    return _tenant(tenant, "feed")


def feed_log(tenant: str) -> str:
    """STREAM: the tenant's status changes, entry ids `{seq}-{tag}`."""
    return _tenant(tenant, "feedlog")


def feed_channel(tenant: str) -> str:
    """Pub/sub channel of the tenant's feed."""
    return _tenant(tenant, "feed:ev")


def queues(tenant: str) -> str:
    """ZSET: every queue of the tenant that ever had a run, all at 0, in the order of their bytes."""
    return _tenant(tenant, "queuenames")


def agents(tenant: str) -> str:
    """HASH: agent id → its present definition."""
    return _tenant(tenant, "agents")


def agent_ids(tenant: str) -> str:
    """ZSET: the ids of the tenant's agents, all at 0, in the order of their bytes."""
    return _tenant(tenant, "agentids")


def agent_versions(tenant: str) -> str:
    """HASH: `agent_id version` → what it was then."""
    return _tenant(tenant, "agentversions")


def hook_secrets(tenant: str) -> str:
    """HASH: `agent_id webhook_id` → the secret that signs what it is told."""
    return _tenant(tenant, "hooksecrets")


QUEUE_PARTS = (
    "entries",
    "lanes",
    "places",
    "ready",
    "parked",
    "hidden",
    "permits",
    "holders",
    "used",
    "limits",
    "offers",
)
"""The keys of a queue, as `lua/lanes.lua` takes them and says what each holds."""


def queue(tenant: str, name: str) -> list[str]:
    """Return the keys of a queue, in the order of `QUEUE_PARTS`."""
    return [f"gw:{{q:{tenant}:{name}}}:{part}" for part in QUEUE_PARTS]


def queue_channel(tenant: str, name: str) -> str:
    """Pub/sub channel that says: this queue may have work."""
    return f"gw:{{q:{tenant}:{name}}}:ev"


def partition(member: str) -> int:
    """Return the timer partition of a run or of whatever else is looked at, 0 to 15."""
    return zlib.crc32(member.encode()) % PARTITIONS


def schedules(tenant: str) -> str:
    """HASH: schedule id → `revision` and the schedule as JSON."""
    return _tenant(tenant, "schedules")


def schedule_ids(tenant: str) -> str:
    """ZSET: the ids of the tenant's schedules, all at 0, in the order of their bytes."""
    return _tenant(tenant, "scheduleids")


def schedule_timer(tenant: str, schedule_id: str) -> str:
    """Return the timer by which a schedule is looked after."""
    return f"schedule:{tenant}:{schedule_id}"


def hook_timer(run_id: str) -> str:
    """Return the timer by which a run's webhooks are looked after."""
    return f"hook:{run_id}"


def timers(number: int) -> str:
    """ZSET: run id, or `kind:rest` → when to look at it, in Unix ms."""
    return f"gw:{{timers:{number:02}}}"


TENANTS = "gw:{access}:tenants"
"""SET: every tenant that ever created a run or a file; the reconciler walks it."""

RECONCILING = "gw:{access}:reconciling"
"""STRING: who finishes what was left half done, so that others need not."""

API_KEYS = "gw:{access}:keys"
"""HASH: SHA-256 of an API key → its record."""

SECRET = "gw:{access}:secret"
"""STRING: the key that signs tickets."""

ACCESS_CHANNEL = "gw:{access}:ev"
"""Pub/sub channel of revocations."""


def probe_channel(process_id: str) -> str:
    """Pub/sub channel on which a process hears itself."""
    return f"gw:probe:{process_id}"


READERS_CHANNEL = "gw:{access}:readers"
"""Pub/sub channel on which every process is asked for its readers."""


def told_channel(process_id: str) -> str:
    """Pub/sub channel on which a process is told what it asked for."""
    return f"gw:told:{process_id}"


def digest(*parts: str) -> str:
    """Return 32 hex characters that stand for `parts`, whatever they contain."""
    return blake2b("\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
