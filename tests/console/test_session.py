"""Who may look: keys, tickets, and their end."""

from __future__ import annotations

import pytest

from tests.console.watching import shown_seqs, sign_in, wait_link, wait_seq, watch
from tests.support.browser import Page
from tests.support.running import LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio


async def test_a_key_in_the_address_signs_in_and_is_taken_out_of_it(page: Page, gateway: RunningGateway) -> None:
    """Neither the address bar, nor the history, nor a referrer, nor what outlives the tab keeps the key."""
    await sign_in(page, gateway.url, gateway.key)
    assert await page.evaluate("location.href") == f"{gateway.url}/console/"
    assert await page.evaluate("Object.values(sessionStorage)") == [gateway.key]
    assert await page.evaluate("localStorage.length + document.cookie.length") == 0
    assert not [url for url in page.requests if gateway.key in url.partition("#")[0]]


async def test_without_a_key_a_person_signs_in(page: Page, gateway: RunningGateway) -> None:
    """A field takes the key; one that does not work is answered in words."""
    await page.open(f"{gateway.url}/console/")
    await page.wait("document.activeElement.id === 'key'")
    await page.type("gwk_wrong")
    await page.press("Enter", 13)
    await page.wait_text("There is no such key.")
    await page.evaluate("document.activeElement.select()")
    await page.type(gateway.key)
    await page.press("Enter", 13)
    await wait_link(page, "live", of="#feed-state")
    await page.click("#sign-out")
    await page.wait_text("Sign in")
    assert await page.evaluate("sessionStorage.length") == 0


async def test_an_expired_ticket_is_renewed_without_a_gap(page: Page, store: RunningStore) -> None:
    """A stream outlives its tickets: the page gets another one and goes on after the last id."""
    async with run_gateway(store.url, ticket_ttl_s=1, access_recheck_s=0.05) as gateway:
        run = await gateway.run_in("running")
        await watch(page, gateway, run)
        tickets = page.requests.count(f"{gateway.url}/v1/tickets")
        await wait_until(lambda: page.requests.count(f"{gateway.url}/v1/tickets") >= tickets + 2)
        await wait_link(page, "live")
        answer = await gateway.append(run["id"], LOG)
        await wait_seq(page, answer.json()["last_seq"])
        assert await shown_seqs(page) == list(range(1, answer.json()["last_seq"] + 1))


async def test_a_revoked_key_ends_the_session(page: Page, gateway: RunningGateway) -> None:
    """The page says why, shows nothing any more and forgets the key."""
    run = await gateway.run_in("running")
    made = await gateway.client.post("/v1/keys", json={"scopes": ["runs:read"]})
    await sign_in(page, gateway.url, made.json()["key"], run_id=run["id"])
    await wait_link(page, "live")
    await gateway.client.delete(f"/v1/keys/{made.json()['id']}")
    await page.wait_text("The key has been revoked.")
    assert await page.evaluate("document.querySelector('.run, #runs')") is None
    assert await page.evaluate("sessionStorage.length") == 0


async def test_a_key_that_may_only_read_is_told_what_it_lacks(page: Page, gateway: RunningGateway) -> None:
    """An action that the gateway refuses leaves its words on the page."""
    run = await gateway.run_in("running")
    made = await gateway.client.post("/v1/keys", json={"scopes": ["runs:read"]})
    await sign_in(page, gateway.url, made.json()["key"], run_id=run["id"])
    await wait_link(page, "live")
    await page.click("[data-verb=pause]")
    await page.click("dialog [data-confirm]")
    await page.wait_text("This needs the scope runs:write.")


async def test_a_run_that_is_not_there_is_said_to_be_missing(page: Page, gateway: RunningGateway) -> None:
    """A wrong address is no empty page."""
    await sign_in(page, gateway.url, gateway.key, run_id="01JZZZZZZZZZZZZZZZZZZZZZZZ")
    await page.wait_text("There is no run 01JZZZZZZZZZZZZZZZZZZZZZZZ.")
