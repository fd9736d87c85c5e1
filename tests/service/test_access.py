"""Keys: recognised without asking each time, ended in time, and good while the store is away."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import access
from gateway.domain.access import Grant, KeyRecord, Principal
from gateway.errors import Forbidden, InvalidBody, KeyEnded, NotFound, StoreUnavailable, Unauthenticated
from gateway.service.access import KEY_CHARS, STATIC_KEY_ID, Access, digest_key, new_key_id
from gateway.store.access import AccessStore
from gateway.store.link import NodeLink
from tests.support.running import RunningStore

ADA = Principal(id="ada", name="Ada", email="ada@example.org")
READ = frozenset({access.RUNS_READ})


class Shelf:
    """A store of keys in memory, which counts what it is asked and can be away."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.away = False
        self.asked = 0
        self.scanned = 0

    def check(self) -> None:
        """Fail while away."""
        self.asked += 1
        if self.away:
            raise StoreUnavailable("The store is away.", outcome="not_written")

    async def put_key(self, digest: str, record_json: bytes) -> None:
        """Keep a record, unless there is one."""
        self.check()
        self.records.setdefault(digest, record_json)

    async def get_key(self, digest: str) -> bytes | None:
        """Return a record."""
        self.check()
        await asyncio.sleep(0)
        return self.records.get(digest)

    async def all_keys(self) -> list[bytes]:
        """Return all records."""
        self.check()
        self.scanned += 1
        await asyncio.sleep(0)
        return list(self.records.values())

    async def swap_key(self, digest: str, known_json: bytes, record_json: bytes) -> bool:
        """Replace a record that is as it was read."""
        self.check()
        if self.records.get(digest) != known_json:
            return False
        self.records[digest] = record_json
        return True

    async def secret(self) -> bytes:
        """Return a secret."""
        self.check()
        return b"secret"


class House:
    """A store, the processes around it, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.now_s = 1_000.0
        self.access = self.open()

    def open(self, static_key: str | None = None) -> Access:
        """Return one process's view of the keys, re-read after five seconds."""
        return Access(self.shelf, recheck_s=5.0, static_key=static_key, clock=lambda: self.now_s)

    async def create(
        self, tenant: str = "default", *, scopes: frozenset[str] = READ, agents: frozenset[str] | None = None
    ) -> tuple[str, KeyRecord]:
        """Make a key."""
        made = self.access.create_key(tenant=tenant, name="k", principal=ADA, scopes=scopes, agents=agents, now_ms=1)
        return await made


@pytest.fixture
def house() -> House:
    """An empty store and one process."""
    return House()


async def test_a_key_is_shown_once_and_never_kept(house: House) -> None:
    """The store holds a digest; who reads it learns no key."""
    key, record = await house.create()
    assert key.startswith("gwk_")
    assert record.digest == digest_key(key)
    assert all(key.encode() not in raw and key[4:].encode() not in raw for raw in house.shelf.records.values())


async def test_the_holder_of_a_key_is_who_it_was_made_for(house: House) -> None:
    """A grant says tenant, principal, scopes, agents and key."""
    key, record = await house.create("acme", agents=frozenset({"a"}))
    assert await house.access.authenticate(key, now_ms=8) == Grant("acme", ADA, READ, frozenset({"a"}), record.id)


async def test_a_key_is_found_by_the_id_that_was_settled_on(house: House) -> None:
    """A request for a key that is repeated finds the record, and never another tenant's."""
    key_id = new_key_id()
    await house.access.create_key(
        tenant="acme", name=None, principal=ADA, scopes=READ, agents=None, now_ms=1, key_id=key_id
    )
    found = await house.open().find_key("acme", key_id)
    assert found is not None
    assert found.id == key_id
    assert await house.access.find_key("default", key_id) is None


async def test_a_key_made_for_nobody_stands_for_itself(house: House) -> None:
    """The audit trail then names the key."""
    _, record = await house.access.create_key(
        tenant="default", name="ci", principal=None, scopes=READ, agents=None, now_ms=1
    )
    assert record.principal == Principal(id=record.id, name="ci")


@pytest.mark.parametrize(
    ("tenant", "scopes"),
    [("default", {"root"}), ("default", set()), ("a{b}", {"admin"}), ("", {"admin"}), ("x" * 65, {"admin"})],
)
async def test_a_key_out_of_bounds_is_not_made(house: House, tenant: str, scopes: set[str]) -> None:
    """Unknown scopes and tenants that could not stand in a store key are refused."""
    with pytest.raises(InvalidBody):
        await house.create(tenant, scopes=frozenset(scopes))
    assert not house.shelf.records


@pytest.mark.parametrize("key", ["", "gwk_nope", "x" * (KEY_CHARS + 1), "\ud800", "é\x00"])
async def test_an_unknown_key_is_refused(house: House, key: str) -> None:
    """Whatever it is, it is no key."""
    with pytest.raises(Unauthenticated) as refused:
        await house.access.authenticate(key, now_ms=8)
    assert refused.value.facts["reason"] == "unknown_key"


async def test_a_known_key_is_asked_for_once_in_a_while(house: House) -> None:
    """A busy client costs the store one read in five seconds."""
    key, _ = await house.create()
    house.shelf.asked = 0
    for _ in range(10):
        house.now_s += 1
        await house.access.authenticate(key, now_ms=8)
    assert house.shelf.asked == 2


async def test_an_unknown_key_is_asked_for_again_soon(house: House) -> None:
    """A client that guesses does not ask the store each time, yet a key made elsewhere works within a second."""
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            await house.access.authenticate("gwk_later", now_ms=8)
    assert house.shelf.asked == 1
    record = KeyRecord("key_1", "default", None, ADA, READ, None, 1, None, digest_key("gwk_later"))
    house.shelf.records[record.digest] = msgspec.json.encode(record)
    house.now_s += 1
    assert (await house.access.authenticate("gwk_later", now_ms=8)).key_id == "key_1"


async def test_guesses_do_not_fill_the_memory(house: House) -> None:
    """What is remembered of unknown keys has a bound, and pushes no known key out."""
    key, _ = await house.create()
    await house.access.authenticate(key, now_ms=8)
    for guess in range(1_100):
        with pytest.raises(Unauthenticated):
            await house.access.authenticate(f"gwk_{guess}", now_ms=8)
    house.shelf.asked = 0
    await house.access.authenticate(key, now_ms=8)
    with pytest.raises(Unauthenticated):
        await house.access.authenticate("gwk_1099", now_ms=8)
    assert house.shelf.asked == 0
    with pytest.raises(Unauthenticated):
        await house.access.authenticate("gwk_0", now_ms=8)
    assert house.shelf.asked == 1


async def test_a_thousand_streams_of_one_key_ask_once(house: House) -> None:
    """Streams that look at the same moment share one read."""
    key, _ = await house.create()
    grant = await house.access.authenticate(key, now_ms=8)
    house.now_s += 6
    house.shelf.asked = 0
    ends = await asyncio.gather(*(house.access.find_end(grant, now_ms=1) for _ in range(1_000)))
    assert set(ends) == {None}
    assert house.shelf.asked == 1


async def test_a_revoked_key_ends_at_once_here_and_soon_elsewhere(house: House) -> None:
    """The process that revokes knows; another one learns it within the recheck time."""
    key, record = await house.create()
    other = house.open()
    grant = await other.authenticate(key, now_ms=8)
    await house.access.revoke_key("default", record.id, now_ms=7)
    assert await house.access.find_end(grant, now_ms=8)
    assert await other.find_end(grant, now_ms=8) is None
    house.now_s += 5
    assert await other.find_end(grant, now_ms=8)
    with pytest.raises(Unauthenticated) as refused:
        await other.authenticate(key, now_ms=8)
    assert refused.value.facts["reason"] == "key_revoked"


async def test_a_hint_makes_revocation_immediate(house: House) -> None:
    """A process told that a key changed does not wait for its recheck."""
    key, record = await house.create()
    other = house.open()
    grant = await other.authenticate(key, now_ms=8)
    await house.access.revoke_key("default", record.id, now_ms=7)
    other.hear(b"unheard of")
    other.hear(record.digest.encode())
    assert await other.find_end(grant, now_ms=8)


async def test_revoking_twice_keeps_the_first_moment(house: House) -> None:
    """The audit trail's time is that of the first."""
    _, record = await house.create()
    first = await house.access.revoke_key(None, record.id, now_ms=7)
    assert await house.access.revoke_key(None, record.id, now_ms=9) == first
    assert first.revoked_at_ms == 7


async def test_another_tenants_key_is_not_there(house: House) -> None:
    """A tenant neither lists nor revokes what is not its own."""
    _, record = await house.create("acme")
    with pytest.raises(NotFound):
        await house.access.revoke_key("default", record.id, now_ms=7)
    assert await house.access.list_keys("default") == []
    assert [listed.id for listed in await house.access.list_keys("acme")] == [record.id]


async def test_only_keys_that_work_are_counted(house: House) -> None:
    """A gateway whose keys are all revoked has none."""
    _, record = await house.create()
    await house.create()
    await house.access.revoke_key(None, record.id, now_ms=7)
    assert await house.access.count_keys(now_ms=8) == 1
    assert len(await house.access.list_keys(None)) == 2


async def test_a_key_works_until_its_time(house: House) -> None:
    """An expired key opens nothing, however recently it was read, and ends the streams that it opened."""
    key, record = await house.access.create_key(
        tenant="acme", name=None, principal=ADA, scopes=READ, agents=None, now_ms=1, expires_at_ms=100
    )
    grant = await house.access.authenticate(key, now_ms=99)
    assert await house.access.find_end(grant, now_ms=99) is None
    assert await house.access.find_end(grant, now_ms=100) == "key_expired"
    with pytest.raises(Unauthenticated) as refused:
        await house.access.authenticate(key, now_ms=100)
    assert refused.value.facts["reason"] == "key_expired"
    assert await house.access.count_keys(now_ms=99) == 1
    assert await house.access.count_keys(now_ms=100) == 0
    assert record.expires_at_ms == 100


async def test_a_rotated_key_works_beside_its_successor_for_a_while(house: House) -> None:
    """Both open the same until the overlap ends; then only the new one does."""
    old_key, old = await house.create("acme", agents=frozenset({"a"}))
    new_key, new, ended = await house.access.rotate_key(None, old.id, overlap_ms=50, lifetime_ms=None, now_ms=10)
    assert (ended.expires_at_ms, ended.rotated_to) == (60, new.id)
    one, two = [await house.access.authenticate(key, now_ms=59) for key in (old_key, new_key)]
    assert msgspec.structs.replace(one, key_id=new.id) == two
    with pytest.raises(Unauthenticated):
        await house.access.authenticate(old_key, now_ms=60)
    assert (await house.access.authenticate(new_key, now_ms=60)).key_id == new.id


async def test_a_successor_lives_as_long_as_its_predecessor_was_made_for(house: House) -> None:
    """Rotation never makes a key of limited life immortal, nor lets the old one live longer."""
    _, old = await house.access.create_key(
        tenant="acme", name=None, principal=ADA, scopes=READ, agents=None, now_ms=0, expires_at_ms=1_000
    )
    _, new, ended = await house.access.rotate_key("acme", old.id, overlap_ms=5_000, lifetime_ms=None, now_ms=900)
    assert new.expires_at_ms == 1_900
    assert ended.expires_at_ms == 1_000


async def test_a_key_is_rotated_once(house: House) -> None:
    """Of two who rotate at once one wins, and no second key is left that works."""
    _, old = await house.create("acme")
    rotations = [house.access.rotate_key("acme", old.id, overlap_ms=50, lifetime_ms=None, now_ms=10) for _ in range(4)]
    results = await asyncio.gather(*rotations, return_exceptions=True)
    made = [result for result in results if isinstance(result, tuple)]
    refusals = [result for result in results if isinstance(result, KeyEnded)]
    assert (len(made), len(refusals)) == (1, 3)
    assert {refusal.facts["rotated_to"] for refusal in refusals} == {made[0][1].id}
    assert await house.access.count_keys(now_ms=20) == 2
    assert await house.access.count_keys(now_ms=60) == 1


async def test_what_has_ended_is_not_rotated(house: House) -> None:
    """A revoked key gets no successor, and a rotation never revives it."""
    _, record = await house.create()
    await house.access.revoke_key(None, record.id, now_ms=7)
    with pytest.raises(KeyEnded):
        await house.access.rotate_key(None, record.id, overlap_ms=50, lifetime_ms=None, now_ms=10)
    with pytest.raises(NotFound):
        await house.access.rotate_key("other", record.id, overlap_ms=50, lifetime_ms=None, now_ms=10)


async def test_a_change_beside_another_loses_neither(house: House) -> None:
    """A key that is revoked while it is rotated is revoked, whoever writes last."""
    key, record = await house.create()
    other = house.open()
    results = await asyncio.gather(
        house.access.rotate_key(None, record.id, overlap_ms=50, lifetime_ms=None, now_ms=10),
        other.revoke_key(None, record.id, now_ms=10),
        return_exceptions=True,
    )
    assert not isinstance(results[1], BaseException)
    with pytest.raises(Unauthenticated):
        await house.open().authenticate(key, now_ms=11)


async def test_a_key_made_before_keys_could_expire_works(house: House) -> None:
    """Records of yesterday are read, changed and revoked like those of today."""
    key, record = await house.create()
    kept = msgspec.to_builtins(record)
    del kept["expires_at_ms"], kept["rotated_to"]
    house.shelf.records[record.digest] = msgspec.json.encode(kept)
    await house.open().authenticate(key, now_ms=8)
    await house.open().revoke_key(None, record.id, now_ms=9)
    with pytest.raises(Unauthenticated):
        await house.open().authenticate(key, now_ms=9)


async def test_streams_outlive_the_store(house: House) -> None:
    """While the store is away known keys work and no stream is ended; an unknown key cannot be judged."""
    key, record = await house.create()
    unseen_key, unseen = await house.create()
    grant = await house.access.authenticate(key, now_ms=8)
    house.shelf.away = True
    for _ in range(3):
        house.now_s += 60
        assert await house.access.find_end(grant, now_ms=1) is None
        assert await house.access.authenticate(key, now_ms=8) == grant
        with pytest.raises(StoreUnavailable):
            await house.access.authenticate(unseen_key, now_ms=8)
        ticket = msgspec.structs.replace(grant, key_id=unseen.id, expires_ms=9)
        assert await house.access.find_end(ticket, now_ms=1) is None
        with pytest.raises(StoreUnavailable):
            await house.access.admit(ticket, now_ms=1)
    house.shelf.away = False
    await house.open().revoke_key(None, record.id, now_ms=7)
    house.now_s += 6
    assert await house.access.find_end(grant, now_ms=8)


async def test_an_absent_store_is_not_stormed(house: House) -> None:
    """After a failed read the store is left alone for a second."""
    key, _ = await house.create()
    grant = await house.access.authenticate(key, now_ms=8)
    house.shelf.away = True
    house.now_s += 6
    house.shelf.asked = 0
    ends = await asyncio.gather(*(house.access.find_end(grant, now_ms=1) for _ in range(100)))
    assert set(ends) == {None}
    assert house.shelf.asked == 1


async def test_a_ticket_lives_as_long_as_its_key_and_its_time(house: House) -> None:
    """On a process that never saw the key: expiry and revocation both end it, each by its name."""
    key, record = await house.create()
    ticket = msgspec.structs.replace(await house.access.authenticate(key, now_ms=8), expires_ms=100)
    other = house.open()
    await other.admit(ticket, now_ms=99)
    with pytest.raises(Unauthenticated) as refused:
        await other.admit(ticket, now_ms=100)
    assert refused.value.facts["reason"] == "ticket_expired"
    assert await other.find_end(ticket, now_ms=100)
    await house.access.revoke_key(None, record.id, now_ms=7)
    house.now_s += 5
    with pytest.raises(Unauthenticated) as refused:
        await other.admit(ticket, now_ms=99)
    assert refused.value.facts["reason"] == "key_revoked"


async def test_tickets_of_one_key_look_for_it_once(house: House) -> None:
    """After a deploy, all of a key's tickets together cost one search and one read."""
    key, _ = await house.create()
    ticket = msgspec.structs.replace(await house.access.authenticate(key, now_ms=8), expires_ms=100)
    other = house.open()
    house.shelf.asked = 0
    ends = await asyncio.gather(*(other.find_end(ticket, now_ms=1) for _ in range(100)))
    assert set(ends) == {None}
    assert (house.shelf.asked, house.shelf.scanned) == (1, 1)


async def test_a_ticket_of_a_key_that_never_was_is_refused(house: House) -> None:
    """A ticket signed for a store since replaced opens nothing."""
    ticket = Grant("default", ADA, READ, None, "key_gone", expires_ms=100)
    with pytest.raises(Unauthenticated) as refused:
        await house.access.admit(ticket, now_ms=1)
    assert refused.value.facts["reason"] == "unknown_key"


async def test_the_development_key_needs_no_store(house: House) -> None:
    """It has every scope of the tenant `default`, and so have its tickets, while this process knows it."""
    house.shelf.away = True
    developed = house.open("a development key")
    grant = await developed.authenticate("a development key", now_ms=8)
    assert (grant.tenant, grant.scopes, grant.key_id) == ("default", access.SCOPES, STATIC_KEY_ID)
    assert await developed.find_end(grant, now_ms=1) is None
    house.shelf.away = False
    house.now_s += 2
    with pytest.raises(Unauthenticated):
        await house.open().admit(grant, now_ms=1)


async def test_the_signing_secret_is_the_stores(house: House) -> None:
    """All processes sign alike."""
    assert await house.access.signing_secret() == b"secret"


async def test_the_real_store_keeps_keys(store: RunningStore) -> None:
    """A key made by one process is recognised by another, and revoked for good: making it again revives nothing."""
    link = NodeLink(store.url, "test-access", timeout_s=5.0)
    running = asyncio.create_task(link.run())
    one, two = (Access(AccessStore(link), recheck_s=60.0) for _ in range(2))
    key, record = await one.create_key(tenant="kept", name=None, principal=ADA, scopes=READ, agents=None, now_ms=1)
    grant = await two.authenticate(key, now_ms=8)
    assert grant == access.grant_key(record)
    assert await two.list_keys("kept") == [record]
    await two.revoke_key("kept", record.id, now_ms=7)
    assert await two.find_end(grant, now_ms=8)
    await AccessStore(link).put_key(record.digest, msgspec.json.encode(record))
    with pytest.raises(Unauthenticated):
        await Access(AccessStore(link), recheck_s=60.0).authenticate(key, now_ms=8)
    assert await one.signing_secret() == await two.signing_secret()
    running.cancel()
    await asyncio.wait([running])


KEY = Grant("acme", ADA, access.SCOPES - {access.ADMIN}, None, "key_1")


def test_a_scope_opens_what_it_names() -> None:
    """A grant without a scope is told which one it lacks; admin has them all."""
    access.require(msgspec.structs.replace(KEY, scopes=READ), access.RUNS_READ)
    access.require(msgspec.structs.replace(KEY, scopes=frozenset({access.ADMIN})), access.WORK)
    with pytest.raises(Forbidden) as refused:
        access.require(msgspec.structs.replace(KEY, scopes=READ), access.RUNS_INPUT)
    assert refused.value.facts == {"required": "runs:input", "scopes": ["runs:read"]}


@pytest.mark.parametrize(
    ("agents", "runs", "thread", "reached"),
    [
        (None, None, None, True),
        ({"a"}, None, None, True),
        ({"b"}, None, None, False),
        (None, {"r"}, None, True),
        (None, {"s"}, None, False),
        (None, set(), None, False),
        (None, None, "t", True),
        (None, None, "u", False),
        (None, {"s"}, "t", True),
        (None, {"r"}, "u", True),
        (None, {"s"}, "u", False),
        ({"b"}, {"r"}, "t", False),
    ],
)
def test_a_grant_reaches_what_its_bounds_name(
    agents: set[str] | None, runs: set[str] | None, thread: str | None, reached: bool
) -> None:
    """Agents always bind; runs and a thread each open what they name."""
    grant = msgspec.structs.replace(
        KEY,
        agents=None if agents is None else frozenset(agents),
        runs=None if runs is None else frozenset(runs),
        thread_id=thread,
    )
    assert access.reaches(grant, "r", "t", "a") is reached
    if reached:
        access.require_reach(grant, "r", "t", "a")
        return
    with pytest.raises(NotFound) as refused:
        access.require_reach(grant, "r", "t", "a")
    assert (refused.value.detail, refused.value.facts) == (access.unknown_run("r").detail, {"run_id": "r"})


def test_a_run_without_a_thread_is_not_in_a_ticket_without_one() -> None:
    """A ticket bound to runs does not reach every run that has no thread."""
    assert not access.reaches(msgspec.structs.replace(KEY, runs=frozenset({"s"})), "r", None, "a")


IDS = st.sampled_from(["1", "2", "3"])
SETS = st.none() | st.frozensets(IDS)


@given(SETS, SETS, st.none() | IDS, st.frozensets(st.sampled_from(sorted(access.TICKET_SCOPES)), min_size=1))
def test_a_ticket_never_reaches_more_than_its_key(
    agents: frozenset[str] | None, runs: frozenset[str] | None, thread: str | None, scopes: frozenset[str]
) -> None:
    """Whatever is asked for, every run and scope that a ticket opens, its key opens too."""
    key = msgspec.structs.replace(KEY, agents=agents, scopes=frozenset({access.RUNS_READ, access.RUNS_INPUT}))
    try:
        ticket = access.narrow(key, scopes=scopes, runs=runs, thread_id=thread, expires_ms=9)
    except Forbidden:
        assert not scopes <= key.scopes
        return
    assert ticket.scopes <= key.scopes
    for run_id, thread_id, agent_id in itertools.product("123", "123", "123"):
        assert access.reaches(key, run_id, thread_id, agent_id) or not access.reaches(
            ticket, run_id, thread_id, agent_id
        )


@pytest.mark.parametrize("scopes", [set(), {"admin"}, {"work"}, {"root"}])
def test_a_ticket_carries_no_more_than_a_browser_needs(scopes: set[str]) -> None:
    """Administration and work stay with keys, and a ticket for nothing is none."""
    grant = msgspec.structs.replace(KEY, scopes=access.SCOPES)
    with pytest.raises(InvalidBody):
        access.narrow(grant, scopes=frozenset(scopes), runs=None, thread_id=None, expires_ms=9)


def test_a_ticket_makes_no_tickets() -> None:
    """Else it could renew itself for ever."""
    ticket = msgspec.structs.replace(KEY, expires_ms=5, kind="ticket")
    with pytest.raises(Forbidden):
        access.narrow(ticket, scopes=READ, runs=None, thread_id=None, expires_ms=9)


def test_a_bound_grant_creates_only_within_its_thread_and_agents() -> None:
    """A ticket for a thread starts runs there, one for runs starts none."""
    in_thread = msgspec.structs.replace(KEY, thread_id="t")
    access.require_creation(in_thread, "a", "t")
    access.require_creation(KEY, "a", None)
    with pytest.raises(Forbidden):
        access.require_creation(in_thread, "a", "u")
    with pytest.raises(Forbidden):
        access.require_creation(in_thread, "a", None)
    with pytest.raises(Forbidden):
        access.require_creation(msgspec.structs.replace(KEY, runs=frozenset({"r"})), "a", "t")
    with pytest.raises(Forbidden):
        access.require_creation(msgspec.structs.replace(KEY, agents=frozenset({"b"})), "a", "t")
    with pytest.raises(Forbidden):
        access.require_creation(msgspec.structs.replace(KEY, scopes=READ), "a", "t")


def test_a_bound_grant_follows_only_its_own_thread() -> None:
    """A thread's stream holds runs to come; a grant for certain runs does not open it."""
    access.require_thread(KEY, "t")
    access.require_thread(msgspec.structs.replace(KEY, thread_id="t"), "t")
    for bound in ({"thread_id": "u"}, {"runs": frozenset({"r"})}):
        with pytest.raises(NotFound):
            access.require_thread(msgspec.structs.replace(KEY, **bound), "t")


@pytest.mark.parametrize(
    ("tenant", "scopes", "runs", "allowed"),
    [
        ("acme", {"admin"}, None, True),
        ("default", {"admin"}, None, False),
        ("acme", {"runs:read"}, None, False),
        ("acme", {"admin"}, {"r"}, False),
    ],
)
def test_keys_are_managed_within_the_own_tenant(
    tenant: str, scopes: set[str], runs: set[str] | None, allowed: bool
) -> None:
    """An administrator of one tenant has no say in another."""
    grant = msgspec.structs.replace(KEY, scopes=frozenset(scopes), runs=None if runs is None else frozenset(runs))
    if allowed:
        access.require_administration(grant, tenant)
        return
    with pytest.raises(Forbidden):
        access.require_administration(grant, tenant)


def test_the_tenant_default_manages_all() -> None:
    """Whoever runs the gateway makes the first key of each tenant."""
    operator = Grant("default", ADA, frozenset({access.ADMIN}), None, "key_0")
    access.require_administration(operator, "acme")
    access.require_delegation(operator, "acme", None)


def test_a_key_for_some_agents_administers_its_own_tenant_only() -> None:
    """Another tenant's agents are others, whatever their names."""
    bound = Grant("default", ADA, frozenset({access.ADMIN}), frozenset({"a"}), "key_0")
    access.require_administration(bound, "default")
    with pytest.raises(Forbidden):
        access.require_administration(bound, "acme")


def test_a_key_makes_none_with_a_longer_reach() -> None:
    """A key for some agents makes keys for some of those."""
    grant = msgspec.structs.replace(KEY, scopes=access.SCOPES, agents=frozenset({"a", "b"}))
    access.require_delegation(grant, "acme", frozenset({"a"}))
    for agents in (None, frozenset({"a", "c"})):
        with pytest.raises(Forbidden):
            access.require_delegation(grant, "acme", agents)
