"""Any actions in any order, with the store lost between any two steps of any of them: runs do what the table says.

The model is the documents' lifecycle written out a second time. Every request that is cut is repeated under the same
key, and must then have been done once. Time passes when a rule says so.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from ulid import ULID

from gateway.domain import due
from gateway.domain.draft import Draft
from gateway.domain.run import Run
from gateway.errors import StoreUnavailable
from gateway.service import work
from gateway.store import queue
from tests.support.choke import Choke, open_choke
from tests.support.running import RunningGateway, RunningStore, run_gateway

HOUR_MS = 3_600_000
LIVE_HELD = {"running", "waiting_for_input", "paused", "cancelling"}
ENDED = {"completed", "failed", "cancelled", "crashed", "dead_letter"}
LOG = {"type": "log", "data": {"level": "info", "message": "m"}}
CHECKPOINT = {"type": "checkpoint.created", "data": {"source": "s", "state": {"n": 1}}}
COMPLETE = {"type": "run.completed", "data": {"output": 1}}
FAIL = {"type": "run.failed", "data": {"error": {"code": "c", "message": "m"}}}
CONFIRM = {"type": "run.cancelled", "data": {}}
# Where the next request is cut: never, or at the n-th command, which the store still executes or does not.
CUTS = st.one_of(st.none(), st.tuples(st.integers(0, 7), st.booleans()))


class Model:
    """One run as the documents say it stands."""

    def __init__(self, run_id: str, most: int, dead_letter: bool) -> None:
        self.id = run_id
        self.most = most
        self.dead_letter = dead_letter
        self.status = "queued"
        self.attempt = 1
        self.failures = 0
        self.failures_to_count = 0
        self.token: str | None = None
        self.spent: set[str] = set()
        self.started = False
        self.asked = False

    def let_go(self) -> None:
        if self.token is not None:
            self.spent.add(self.token)
        self.token, self.started = None, False

    def end(self, status: str) -> None:
        self.let_go()
        self.status, self.asked = status, False

    def fail(self, end: str) -> None:
        """An attempt that was started has failed."""
        self.failures += 1
        if self.failures >= self.most:
            self.end("dead_letter" if self.dead_letter else end)
        else:
            self.let_go()
            self.status, self.asked = "delayed", False
            # The next attempt has its number once it is queued.
            self.failures_to_count = 1


class Bench:
    """A gateway behind a relay that can be cut, driven from this thread."""

    def __init__(self, portal: BlockingPortal, choke: Choke, api: RunningGateway) -> None:
        self.portal = portal
        self.choke = choke
        self.api = api
        self.client = httpx.Client(base_url=api.url, headers={"authorization": f"Bearer {api.key}"}, timeout=60)

    def post(self, path: str, body: Any, *, cut: Any = None, token: str | None = None) -> httpx.Response:
        """Post, cut where `cut` says, and post again until it is answered."""
        headers = {"idempotency-key": str(ULID()), **({} if token is None else {"lease": token})}
        if cut is not None:
            self.choke.arm(cut[0], executed=cut[1], counts=lambda command: command[0] not in (b"SPUBLISH", b"TIME"))
        answer = self.client.post(path, json=body, headers=headers)
        self.choke.disarm()
        while answer.status_code == 503:
            answer = self.client.post(path, json=body, headers=headers)
        return answer

    def get(self, path: str, **params: Any) -> Any:
        """Get until it is answered."""
        while (answer := self.client.get(path, params=params)).status_code == 503:
            pass
        assert answer.status_code == 200, answer.text
        return answer.json()

    def later(self, run_id: str) -> None:
        """Have an hour pass for a run."""

        def decide(run: Run, draft: Draft) -> None:
            draft.at_ms += HOUR_MS
            due.fall_due(run, draft)

        while True:
            try:
                return self.portal.call(self._change, run_id, decide)
            except StoreUnavailable:
                continue

    async def _change(self, run_id: str, decide: Callable[[Run, Draft], None]) -> None:
        await self.api.gateway._timers._journal.change(run_id, self.api.tenant, decide)

    def reconcile(self) -> None:
        """Finish what was cut, as the reconciler does once it is old enough."""
        while True:
            try:
                return self.portal.call(self._reconcile)
            except StoreUnavailable:
                continue

    async def _reconcile(self) -> None:
        timers = self.api.gateway._timers
        await timers.finish_changes(self.api.tenant, before_ms=timers._journal.clock.now_ms() + HOUR_MS)


@contextmanager
def open_bench(store: RunningStore) -> Iterator[Bench]:
    """Give a bench of its own tenant."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder, start_blocking_portal() as portal:
        stack = AsyncExitStack()

        async def enter() -> tuple[Choke, RunningGateway]:
            choke = await stack.enter_async_context(open_choke(store.url, Path(folder)))
            running = run_gateway(choke.url, lease_s=3_600, cancel_grace_s=3_600, probe_s=60)
            return choke, await stack.enter_async_context(running)

        async def leave() -> None:
            await stack.aclose()

        with portal.wrap_async_context_manager(_Held(enter, leave)) as (choke, api):
            yield Bench(portal, choke, api)


class _Held:
    """Enters and leaves within one task of the portal, as task groups demand."""

    def __init__(self, enter: Callable[[], Any], leave: Callable[[], Any]) -> None:
        self._enter = enter
        self._leave = leave

    async def __aenter__(self) -> Any:
        return await self._enter()

    async def __aexit__(self, *_error: object) -> None:
        await self._leave()


def machine_over(bench: Bench) -> type[RuleBasedStateMachine]:
    """Return the state machine that plays on `bench`."""
    numbers = itertools.count()

    class Runs(RuleBasedStateMachine):
        """Up to a few runs of a queue of their own."""

        runs = Bundle("runs")

        def __init__(self) -> None:
            super().__init__()
            self.queue = f"model{next(numbers)}"
            self.models: list[Model] = []

        @rule(target=runs, cut=CUTS, most=st.integers(1, 3), dead_letter=st.booleans())
        def create(self, cut: Any, most: int, dead_letter: bool) -> Model:
            """A run enters the queue, once."""
            retry = {"max_attempts": most, "initial_delay_s": 600, "max_delay_s": 600}
            body = {"agent_id": "m", "mode": "queued", "queue": self.queue, "retry": retry, "dead_letter": dead_letter}
            answer = bench.post("/v1/runs", body, cut=cut)
            assert answer.status_code == 201, answer.text
            model = Model(answer.json()["id"], most, dead_letter)
            self.models.append(model)
            return model

        @rule(cut=CUTS)
        def claim(self, cut: Any) -> None:
            """Whoever claims gets a queued run; a claim that was cut may have taken one that nobody knows of."""
            queued = {model.id: model for model in self.models if model.status == "queued"}
            body = {"queues": [self.queue], "max": 1}
            data = bench.post("/v1/claims", body, cut=cut).json()["data"]
            if not data and cut is None and queued:
                # What a cut left half done shows again once it is finished.
                bench.reconcile()
            for claimed in data:
                model = queued.pop(claimed["run"]["id"])
                model.status, model.token = "dequeued", claimed["lease"]["token"]
                assert claimed["lease"]["attempt"] == model.attempt
            for model in queued.values():
                if cut is not None and self.look(model)["status"] == "dequeued":
                    model.status, model.token = "dequeued", "lost"

        def look(self, model: Model) -> dict[str, Any]:
            run: dict[str, Any] = bench.get(f"/v1/runs/{model.id}")
            return run

        def act(self, model: Model, verb: str, cut: Any, permitted: set[str], **body: Any) -> bool:
            answer = bench.post(f"/v1/runs/{model.id}/{verb}", body, cut=cut)
            if model.status in permitted:
                assert answer.status_code == 200, (verb, model.status, answer.text)
                return True
            assert answer.status_code == 409, (verb, model.status, answer.text)
            return False

        def append(self, model: Model, event: dict[str, Any], cut: Any) -> bool:
            token = model.token or "none"
            answer = bench.post(f"/v1/runs/{model.id}/events", event, cut=cut, token=token)
            if model.token in (None, "lost") or model.status not in LIVE_HELD | {"dequeued"}:
                assert answer.status_code == 409, (model.status, answer.text)
                return False
            if model.status in ("paused", "cancelling") and event["type"] == "run.waiting_for_input":
                assert answer.status_code == 409, answer.text
                return False
            assert answer.status_code == 200, (model.status, event["type"], answer.text)
            if model.status == "dequeued":
                model.status, model.started = "running", True
            return True

        @rule(model=runs, cut=CUTS, event=st.sampled_from([LOG, CHECKPOINT]))
        def write(self, model: Model, cut: Any, event: dict[str, Any]) -> None:
            """A holder may write, nobody else."""
            self.append(model, event, cut)

        @rule(model=runs, cut=CUTS)
        def ask(self, model: Model, cut: Any) -> None:
            """A running run waits for an answer."""
            question = {"type": "run.waiting_for_input", "data": {"prompt": "?"}}
            if self.append(model, question, cut):
                model.status, model.asked = "waiting_for_input", True

        @rule(model=runs, cut=CUTS)
        def answer(self, model: Model, cut: Any) -> None:
            """The only question is answered; with several open, the answer has to name one."""
            open_ids = [q["request_id"] for q in self.look(model)["open_requests"]]
            named = {"request_id": open_ids[0]} if open_ids else {}
            if self.act(model, "input", cut, {"waiting_for_input"}, content="yes", **named) and len(open_ids) == 1:
                model.asked = False
                model.status = "running" if model.token else "queued"

        @rule(model=runs, cut=CUTS, event=st.sampled_from([COMPLETE, CONFIRM]))
        def finish(self, model: Model, cut: Any, event: dict[str, Any]) -> None:
            """A holder may always end."""
            if self.append(model, event, cut):
                model.end("completed" if event is COMPLETE else "cancelled")

        @rule(model=runs, cut=CUTS)
        def fail(self, model: Model, cut: Any) -> None:
            """An attempt fails; another follows while there is one left, unless the run was not meant to go on."""
            if self.append(model, FAIL, cut):
                model.end("failed") if model.status in ("paused", "cancelling") else model.fail("failed")

        @rule(model=runs, cut=CUTS)
        def pause(self, model: Model, cut: Any) -> None:
            """What waits or works stands still; a claim that was not started is void."""
            if self.act(model, "pause", cut, {"queued", "dequeued", "running", "waiting_for_input"}):
                if model.status == "dequeued":
                    model.let_go()
                model.status = "paused"

        @rule(model=runs, cut=CUTS)
        def resume(self, model: Model, cut: Any) -> None:
            """It goes on where it was."""
            if self.act(model, "resume", cut, {"paused"}):
                working = "waiting_for_input" if model.asked else "running"
                model.status = working if model.token or model.asked else "queued"

        @rule(model=runs, cut=CUTS, force=st.booleans())
        def cancel(self, model: Model, cut: Any, force: bool) -> None:
            """At once where nobody holds it, else once its holder lets go."""
            live = {"delayed", "queued", "dequeued", *LIVE_HELD}
            if self.act(model, "cancel", cut, live, force=force):
                if model.started and not force:
                    model.status, model.asked = "cancelling", model.asked
                else:
                    model.end("cancelled")

        @rule(model=runs, cut=CUTS)
        def restart(self, model: Model, cut: Any) -> None:
            """The next attempt, with all of its tries before it."""
            if self.act(model, "restart", cut, {"running", "paused", *ENDED}):
                model.end("queued")
                model.attempt, model.failures = model.attempt + 1, 0

        @rule(model=runs, cut=CUTS)
        def replay_dead(self, model: Model, cut: Any) -> None:
            """The first attempt again."""
            if self.act(model, "dlq-replay", cut, {"dead_letter"}):
                model.status, model.attempt, model.failures = "queued", 1, 0

        @rule(model=runs, cut=CUTS)
        def release(self, model: Model, cut: Any) -> None:
            """A holder gives the run back; at a question it waits on."""
            token = model.token or "none"
            answer = bench.post(f"/v1/runs/{model.id}/release", {}, cut=cut, token=token)
            if model.token in (None, "lost"):
                assert answer.status_code == 409, answer.text
                return
            assert answer.status_code == 200, answer.text
            model.let_go()
            if model.status == "cancelling":
                model.end("cancelled")
            elif model.status in ("dequeued", "running"):
                model.status = "queued"

        @rule(model=runs)
        def write_late(self, model: Model) -> None:
            """Whoever held the run once writes nothing any more."""
            for token in model.spent - {model.token, "lost"}:
                answer = bench.post(f"/v1/runs/{model.id}/events", LOG, token=token)
                assert answer.status_code == 409, answer.text

        @rule(model=runs)
        def wait(self, model: Model) -> None:
            """An hour passes: what is due happens, whoever holds a run was silent."""
            bench.later(model.id)
            if model.status == "delayed":
                model.status, model.attempt = "queued", model.attempt + model.failures_to_count
                model.failures_to_count = 0
            elif model.status == "dequeued":
                model.let_go()
                model.status = "delayed"
            elif model.status == "cancelling":
                model.end("cancelled")
            elif model.status == "paused":
                model.let_go()
            elif model.token is not None:
                model.fail("crashed")

        @invariant()
        def agrees(self) -> None:
            """Record and model say the same, and the lists show it."""
            for model in self.models:
                run = self.look(model)
                assert (run["status"], run["attempt"]) == (model.status, model.attempt), run
                assert (run["lease"] is not None) == (model.token is not None), run
            statuses = sorted({"queued", *(model.status for model in self.models)})
            listed = bench.get("/v1/runs", status=statuses, limit=100)["data"]
            shown = {run["id"] for run in listed}
            assert {model.id for model in self.models} <= shown

        def teardown(self) -> None:
            """Every queued run can be claimed, and no other; every log is dense and ends at most once."""
            bench.reconcile()
            waiting = {model.id for model in self.models if model.status == "queued"}
            while waiting:
                # What a cut claim had reserved shows again after a while, and is looked for every two seconds.
                body = {"queues": [self.queue], "max": 100, "wait_s": 30}
                data = bench.post("/v1/claims", body).json()["data"]
                assert data, f"in no queue: {waiting}"
                for taken in data:
                    waiting.remove(taken["run"]["id"])
            assert bench.post("/v1/claims", {"queues": [self.queue], "max": 100}).json()["data"] == []

    return Runs


# What is cut waits for a new connection: some histories hold many of these waits.
@pytest.mark.timeout(600)
def test_runs_do_what_the_table_says_whatever_is_cut(store: RunningStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random histories over the real store."""
    # How long a repeat hears of a claim that was cut, and what that had reserved is hidden: most of the time there was.
    monkeypatch.setattr(work, "OTHER_S", 0.2)
    monkeypatch.setattr(queue, "HIDE_MS", 500)
    with open_bench(store) as bench:
        run_state_machine_as_test(
            machine_over(bench),
            settings=settings(
                max_examples=40,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            ),
        )
