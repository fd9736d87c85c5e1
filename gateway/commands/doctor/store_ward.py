"""Whether a store is fit to keep logs: judged from what it says of itself, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.commands.doctor.finding import Finding, Ward
from gateway.store.condition import StoreCondition
from gateway.store.rights import rule

OLDEST_REDIS: Final = 7
OLDEST_VALKEY: Final = 8
FULL_PROBLEM: Final = 0.95
FULL_WARNING: Final = 0.75
CLOCK_WARNING_MS: Final = 1_000
CLOCK_PROBLEM_MS: Final = 60_000
SLOW_MS: Final = 5.0
SPIKE_MS: Final = 100.0
SLOW_FORK_US: Final = 500_000
SILENT_REPLICA_S: Final = 10
FEWEST_SENTINELS: Final = 3


def judge_cluster(conditions: Mapping[str, StoreCondition]) -> list[Finding]:
    """Return what is to be said of the primaries of a cluster: what is good of all once, what is not of each."""
    bad: list[Finding] = []
    good: dict[str, list[Finding]] = {}
    for address, condition in conditions.items():
        for finding in judge_store(condition, embedded=False, of_cluster=True):
            if finding.level == "good":
                good.setdefault(finding.check, []).append(finding)
            else:
                bad.append(msgspec.structs.replace(finding, said=f"Node {address}: {finding.said}"))
    shown = [
        msgspec.structs.replace(same[0], said=f"{len(same)} of {len(conditions)} nodes; the first: {same[0].said}")
        for same in good.values()
    ]
    return [*shown, *bad]


def judge_sentinels(told: Mapping[str, str | None]) -> list[Finding]:
    """Return what is to be said of the sentinels that were named, by the primary that each names."""
    ward = Ward("store")
    silent = [address for address, primary in told.items() if primary is None]
    named = sorted({primary for primary in told.values() if primary is not None})
    if len(named) > 1:
        said = f"The sentinels disagree about the primary: {', '.join(named)}."
        ward.add("sentinels", "problem", said, "Look at `SENTINEL MASTERS` at each of them.")
    if silent:
        said = f"{len(silent)} of {len(told)} sentinels name no primary: {', '.join(silent)}."
        ward.add("sentinels", "warning", said, "Are they running, and is the service the one that they watch over?")
    elif len(told) < FEWEST_SENTINELS:
        said = f"Only {len(told)} are named: while they are away, the primary is not found."
        ward.add("sentinels", "warning", said, "Name three or more.")
    elif len(named) == 1:
        ward.add("sentinels", "good", f"{len(told)} sentinels name {named[0]}.")
    return ward.findings


def judge_store(condition: StoreCondition, *, embedded: bool, of_cluster: bool = False) -> list[Finding]:
    """Return what is to be said of a store, good and bad.

    Args:
        of_cluster: It was reached as a node of a cluster.
    """
    ward = Ward("store")
    if condition.info_refused:
        said = "INFO may not be asked here: version, persistence, eviction, memory and replicas were not checked."
        ward.add("information", "note", said, "Give the store's user `+info`, or look them up with whoever hosts it.")
    else:
        _judge_version(ward, condition.info)
        _judge_persistence(ward, condition.info, condition.config)
        _judge_eviction(ward, condition.info)
        _judge_memory(ward, condition.info)
        _judge_replication(ward, condition.info, condition.config, embedded=embedded)
    _judge_clock(ward, condition)
    _judge_latency(ward, condition)
    _judge_cluster(ward, condition, of_cluster=of_cluster)
    _judge_clients(ward, condition)
    _judge_rights(ward, condition)
    return ward.findings


def _judge_version(ward: Ward, info: Mapping[str, str]) -> None:
    name, oldest, told = "Redis", OLDEST_REDIS, info.get("redis_version", "")
    if "valkey_version" in info:
        name, oldest, told = "Valkey", OLDEST_VALKEY, info["valkey_version"]
    major = told.partition(".")[0]
    if not major.isdigit():
        ward.add("version", "warning", "The store does not say which version it is.", "Use Redis 7+ or Valkey 8+.")
    elif int(major) < oldest:
        ward.add("version", "problem", f"{name} {told} is too old.", f"Use {name} {oldest} or newer.")
    else:
        ward.add("version", "good", f"{name} {told}.")


def _judge_persistence(ward: Ward, info: Mapping[str, str], config: Mapping[str, str] | None) -> None:
    if info.get("loading") == "1":
        ward.add("loading", "problem", "The store is loading its data and takes no calls yet.", "Wait for it.")
    if info.get("aof_enabled") != "1":
        snapshots = (
            f" Snapshots are taken by the rule `save {config['save']}`." if config and config.get("save") else ""
        )
        lost = "what was acknowledged since the latest snapshot" if snapshots else "every run"
        ward.add(
            "persistence",
            "problem",
            f"The append-only file is off: a crash or a restart of the store loses {lost}.{snapshots}",
            "Set `appendonly yes` (and `CONFIG REWRITE`, or it is off again after a restart).",
        )
    else:
        _judge_fsync(ward, config)
    for field, name in (("aof_last_write_status", "write to the append-only file"), ("rdb_last_bgsave_status", "save")):
        if info.get(field, "ok") != "ok":
            ward.add(
                "disk",
                "problem",
                f"The store's last {name} failed: it may refuse writes.",
                "Look at its disk and its log.",
            )
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        ward.add(
            "disk",
            "warning",
            "The store's last rewrite of its append-only file failed: the file only grows.",
            "Look at its disk, its memory (a fork needs `vm.overcommit_memory=1`) and its log.",
        )
    if int(info.get("latest_fork_usec", 0)) > SLOW_FORK_US:
        took_ms = int(info["latest_fork_usec"]) // 1_000
        ward.add(
            "fork",
            "warning",
            f"The store stood still for {took_ms} ms at its last fork.",
            "Switch off huge pages there.",
        )


def _judge_fsync(ward: Ward, config: Mapping[str, str] | None) -> None:
    match (config or {}).get("appendfsync"):
        case "always":
            ward.add(
                "persistence", "good", "Append-only file, flushed at every write: what was acknowledged is on disk."
            )
        case "everysec":
            ward.add(
                "persistence",
                "note",
                "Append-only file, flushed every second: a crash can lose the last second or two of events.",
                "If that is less than you promise, set `appendfsync always`.",
            )
        case "no":
            ward.add(
                "persistence",
                "warning",
                "Append-only file, flushed when the system likes: a crash can lose half a minute of events.",
                "Set `appendfsync everysec` or `always`.",
            )
        case _:
            ward.add(
                "persistence",
                "note",
                "The append-only file is on; how often it is flushed may not be asked here.",
                "Look it up with whoever hosts the store: `appendfsync`.",
            )


def _judge_eviction(ward: Ward, info: Mapping[str, str]) -> None:
    policy, limit = info.get("maxmemory_policy", "?"), int(info.get("maxmemory", 0))
    evicted = int(info.get("evicted_keys", 0))
    cure = "Set `maxmemory-policy noeviction`."
    if evicted and policy != "noeviction":
        ward.add("eviction", "problem", f"The store has thrown {evicted} keys away to make room: logs are lost.", cure)
    elif policy == "noeviction":
        ward.add("eviction", "good", "A full store refuses writes, and throws no log away (`noeviction`).")
    elif limit:
        ward.add("eviction", "problem", f"`maxmemory-policy {policy}`: a full store throws logs away.", cure)
    else:
        said = f"`maxmemory-policy {policy}`: once the store has a memory limit, it throws logs away."
        ward.add("eviction", "warning", said, cure)


def _judge_memory(ward: Ward, info: Mapping[str, str]) -> None:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    of = "its limit" if limit else "its machine's memory, without a limit of its own"
    limit = limit or int(info.get("total_system_memory", 0))
    if not limit:
        ward.add("memory", "note", f"The store uses {used >> 20} MiB, and does not say of how many.")
        return
    said = f"The store uses {used >> 20} of {limit >> 20} MiB, {used / limit:.0%} of {of}."
    cure = "Give it more memory, or shorten GATEWAY_LOG_RETENTION_S and GATEWAY_RECORD_RETENTION_S."
    full = used / limit
    if full > FULL_PROBLEM:
        ward.add("memory", "problem", said, cure)
    elif full > FULL_WARNING:
        ward.add("memory", "warning", said, cure)
    else:
        ward.add("memory", "good", said)


def _judge_clock(ward: Ward, condition: StoreCondition) -> None:
    ahead_ms = condition.clock_ahead_ms
    said = f"The store's clock is {abs(ahead_ms):,.0f} ms {'ahead of' if ahead_ms > 0 else 'behind'} this machine's."
    cure = "Let both machines follow a time server (NTP)."
    if abs(ahead_ms) > CLOCK_PROBLEM_MS:
        ward.add("clock", "problem", f"{said} Times in logs are the store's.", cure)
    elif abs(ahead_ms) > CLOCK_WARNING_MS:
        ward.add("clock", "warning", f"{said} Times in logs are the store's.", cure)
    else:
        ward.add("clock", "good", said)


def _judge_latency(ward: Ward, condition: StoreCondition) -> None:
    median_ms, longest_ms = condition.median_ms, max(condition.round_trips_ms)
    said = f"A round trip to the store takes {median_ms:.2f} ms; the longest of {len(condition.round_trips_ms)} took "
    said += f"{longest_ms:.1f} ms."
    if median_ms > SLOW_MS:
        ward.add("latency", "warning", f"{said} Every append waits for at least one.", "Run both in one network zone.")
    elif longest_ms > SPIKE_MS:
        ward.add("latency", "warning", said, "Look for slow commands, forks and a busy processor at the store.")
    else:
        ward.add("latency", "good", said)


def _judge_replication(
    ward: Ward, info: Mapping[str, str], config: Mapping[str, str] | None, *, embedded: bool
) -> None:
    if info.get("role") == "slave":
        link = info.get("master_link_status", "?")
        ward.add(
            "replication",
            "problem",
            f"This is a replica (link to its primary: {link}); it takes no writes.",
            "Name the primary.",
        )
        return
    replicas = [info[name] for name in sorted(info) if name.startswith("slave") and name[5:].isdigit()]
    if not replicas:
        said = "There is no replica: what is lost with the store's machine is lost."
        ward.add("replication", "note", said, "" if embedded else "Add a replica, or back the append-only file up.")
        return
    late = [replica for replica in replicas if _is_late(replica)]
    if late:
        said = f"{len(late)} of {len(replicas)} replicas do not follow: {'; '.join(late)}."
        ward.add("replication", "warning", said, "Look at their logs and the network between.")
    else:
        ward.add("replication", "good", f"{len(replicas)} replicas follow.")
    if (config or {}).get("min-replicas-to-write") == "0":
        said = "A write is acknowledged before a replica has it: a failover can lose the last ones; readers are told."
        ward.add("replication", "note", said, "To lose fewer, set `min-replicas-to-write 1`.")


def _is_late(replica: str) -> bool:
    told = dict(part.partition("=")[::2] for part in replica.split(","))
    return told.get("state") != "online" or int(told.get("lag", 0)) > SILENT_REPLICA_S


def _judge_cluster(ward: Ward, condition: StoreCondition, *, of_cluster: bool) -> None:
    if condition.cluster_state is None:
        return
    if condition.cluster_primaries > 1 and not of_cluster:
        said = f"The store is one of {condition.cluster_primaries} nodes of a cluster: it has some of the runs only."
        ward.add("cluster", "problem", said, "Have GATEWAY_REDIS_URL say `redis+cluster://` and name some nodes.")
    elif condition.cluster_state == "ok":
        ward.add("cluster", "good", "The store is a cluster, and all of its slots are served.")
    else:
        said = f"The store is a cluster in state `{condition.cluster_state}`: some slots are served by nobody."
        ward.add("cluster", "problem", said, "Look at `CLUSTER NODES`.")


def _judge_clients(ward: Ward, condition: StoreCondition) -> None:
    config = condition.config or {}
    connected, most = int(condition.info.get("connected_clients", 0)), int(config.get("maxclients", 0))
    if most and connected > FULL_WARNING * most:
        said = f"{connected} of at most {most} clients are connected; a gateway process needs three."
        ward.add("clients", "warning", said, "Raise `maxclients`.")
    if config.get("timeout", "0") != "0":
        said = f"The store ends connections that are idle for {config['timeout']} s; each end costs a reconnect."
        ward.add("clients", "note", said, "Set `timeout 0`.")


def _judge_rights(ward: Ward, condition: StoreCondition) -> None:
    if condition.refused:
        said = f"The store's user may not use {', '.join(condition.refused)}: the gateway needs that."
        ward.add("rights", "problem", said, f"`ACL SETUSER` it with at least `{rule()}`.")
    elif condition.refused is not None:
        ward.add("rights", "good", "The store's user may do all that the gateway needs.")
    if condition.config is None:
        ward.add("configuration", "note", "CONFIG may not be asked here; what only it tells was not checked.")
