"""Where a dialect permits less than the lifecycle does, judged within the very change that an action makes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from gateway.domain.lifecycle import Action, Status, require
from gateway.domain.run import Run

Permitted: TypeAlias = AbstractSet[Status] | Callable[[Run], None] | None
"""The statuses from which an action passes, or what refuses the run as it stands; None narrows nothing."""


def narrow(run: Run, action: Action, permitted: Permitted) -> None:
    """Let `action` pass for a run as far as `permitted` goes.

    Raises:
        IllegalTransition: it goes no further; the lifecycle's own rule is judged elsewhere.
    """
    if callable(permitted):
        permitted(run)
    elif permitted is not None:
        require(action, run.status, narrowed=permitted)
