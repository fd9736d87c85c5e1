"""Whether this machine has what a gateway takes: open files, disk, and what its kernel allows."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from typing import Final

from gateway.commands.doctor.finding import Finding, Ward
from gateway.commands.listen import BACKLOG
from gateway.settings import GIB, MIB

SPARE_FILES: Final = 200
"""What a process has open beside its readers: the store, the socket, files, code."""
DISK_PROBLEM_BYTES: Final = 256 * MIB
DISK_WARNING_BYTES: Final = 2 * GIB


def judge_machine(data_dir: Path, *, readers: int, workers: int, embedded: bool) -> list[Finding]:
    """Return what is to be said of the machine on which this runs.

    Args:
        readers: How many are expected at once, by all processes together.
        embedded: Whether the store lives in the data directory, too.
    """
    ward = Ward("machine")
    _judge_files(ward, readers=readers, workers=workers)
    _judge_disk(ward, data_dir)
    _judge_backlog(ward)
    if embedded:
        _judge_overcommit(ward)
    return ward.findings


def _judge_files(ward: Ward, *, readers: int, workers: int) -> None:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The kernel hands connections out as it likes; one process may get twice its share.
    needed = SPARE_FILES + (readers if workers == 1 else 2 * readers // workers)
    if soft == resource.RLIM_INFINITY:
        ward.add("open files", "good", "A process may open as many files as it likes.")
    elif soft < needed:
        said = f"A process may open {soft:,} files, and needs {needed:,} for {readers:,} readers."
        ward.add("open files", "problem", said, f"Raise it: `ulimit -n {needed}`, or LimitNOFILE={needed} of systemd.")
    else:
        ward.add("open files", "good", f"A process may open {soft:,} files, enough for {readers:,} readers.")


def _judge_disk(ward: Ward, data_dir: Path) -> None:
    place = next(path for path in (data_dir.absolute(), *data_dir.absolute().parents) if path.exists())
    usage = shutil.disk_usage(place)
    said = f"{usage.free / GIB:.1f} GiB of {usage.total / GIB:.1f} GiB are free where {data_dir} is."
    if usage.free < DISK_PROBLEM_BYTES:
        ward.add("disk", "problem", said, "Free some, or move GATEWAY_DATA_DIR.")
    elif usage.free < DISK_WARNING_BYTES:
        ward.add("disk", "warning", said, "Free some, or move GATEWAY_DATA_DIR.")
    else:
        ward.add("disk", "good", said)


def _judge_backlog(ward: Ward) -> None:
    most = _read_number(Path("/proc/sys/net/core/somaxconn"))
    if most is not None and most < BACKLOG:
        said = f"The kernel lets {most} connections wait to be accepted, fewer than the gateway asks for ({BACKLOG})."
        ward.add("backlog", "warning", said, f"`sysctl net.core.somaxconn={BACKLOG}`, for when all readers come back.")


def _judge_overcommit(ward: Ward) -> None:
    if _read_number(Path("/proc/sys/vm/overcommit_memory")) == 2:
        said = "`vm.overcommit_memory=2`: a large store cannot fork to rewrite its file, which then only grows."
        ward.add("memory", "warning", said, "`sysctl vm.overcommit_memory=1`.")


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
