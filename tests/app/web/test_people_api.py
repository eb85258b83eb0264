"""The console's page of people and keys: what an operator sees and does there, and nobody else."""

from __future__ import annotations

import re
from html import unescape

import pytest

from app.html.people_page import PeoplePage
from feedback_store.accounts.accounts import Account, Accounts
from tests.app.web.test_identity import (
    Client,
    account_of,
    accounts,
    client,
    quick,
    service,
    settings,
    signed_in,
    url,
)

__all__ = ["accounts", "client", "quick", "service", "settings", "url"]  # fixtures
PEOPLE = "/console/people"


@pytest.fixture
def ann(accounts: Accounts) -> Account:
    return account_of(accounts, "ann", "operator")


@pytest.fixture
def bob(accounts: Accounts) -> Account:
    return account_of(accounts, "bob")


def link_in(page: str) -> str:
    """The path of the link that a page shows."""
    found = re.search(r'class="secret">[^<]*(/account/link\?token=[^<]+)<', page)
    assert found is not None, page
    return unescape(found[1])


def test_people_are_listed_with_roles_log_ins_and_keys(
    ann: Account, bob: Account, accounts: Accounts, client: Client
) -> None:
    accounts.keys.create(bob.id, ("chat",), "a script of Bob's")
    old, _ = accounts.keys.create(bob.id, ("chat",), "an old one")
    accounts.keys.revoke(old.id)
    page = signed_in(client(), "ann").get(PEOPLE).text
    assert "a script of Bob&#x27;s" in page
    assert "an old one" not in page  # it works no longer
    assert "log-ins: 1 · keys: 0" in page
    assert "log-ins: 0 · keys: 1" in page
    assert f"{PEOPLE}/{bob.id}/disable" in page
    assert f"{PEOPLE}/{ann.id}/" not in page  # her own account is on its own page


def test_an_invitation_is_shown_once_and_lets_somebody_join(
    ann: Account, client: Client, url: str
) -> None:
    operator = signed_in(client(), "ann")
    shown = operator.post(f"{PEOPLE}/invite", data={"role": "reviewer"})
    link = link_in(shown.text)
    assert f"{url}{link}" in unescape(shown.text)
    assert link not in operator.get(PEOPLE).text
    assert client().get(link).status_code == 200
    assert operator.post(f"{PEOPLE}/invite", data={"role": "king"}).status_code == 400


def test_each_act_holds_at_once_and_is_in_the_audit_log(
    ann: Account, bob: Account, accounts: Accounts, client: Client
) -> None:
    operator, other = signed_in(client(), "ann"), signed_in(client(), "bob")
    key, _ = accounts.keys.create(bob.id)
    there = f"{PEOPLE}/{bob.id}"
    assert operator.post(f"{there}/role", data={"role": "reviewer"}).status_code == 303
    assert accounts.get(bob.id).role == "reviewer"
    operator.post(f"{PEOPLE}/keys/{key.id}/revoke")
    assert [each.revoked_at is None for each in accounts.keys.of(bob.id)] == [False]
    operator.post(f"{there}/sign_out")
    assert other.get("/account").status_code == 303
    operator.post(f"{there}/disable")
    assert accounts.get(bob.id).disabled_at is not None
    operator.post(f"{there}/enable")
    assert accounts.get(bob.id).disabled_at is None
    assert client().get(link_in(operator.post(f"{there}/reset").text)).status_code == 200
    acts = [(each.actor, each.action) for each in reversed(accounts.audit.entries())]
    assert acts == [
        ("ann", "change role to reviewer"),
        ("ann", "revoke key"),
        ("ann", "end sessions"),
        ("ann", "disable"),
        ("ann", "enable"),
        ("ann", "offer reset"),
    ]


@pytest.mark.parametrize("act", ["role", "sign_out", "disable", "reset"])
def test_nobody_locks_themselves_out(
    act: str, ann: Account, accounts: Accounts, client: Client
) -> None:
    operator = signed_in(client(), "ann")
    refused = operator.post(f"{PEOPLE}/{ann.id}/{act}", data={"role": "user"})
    assert refused.status_code == 400
    assert "this is your own account" in refused.text
    assert accounts.get(ann.id) == ann
    assert accounts.audit.entries() == []


def test_an_unknown_person_is_an_error_in_words(ann: Account, client: Client) -> None:
    refused = signed_in(client(), "ann").post(f"{PEOPLE}/nobody/disable")
    assert refused.status_code == 400
    assert 'role="alert"' in refused.text


def test_users_and_reviewers_do_not_see_it(accounts: Accounts, client: Client) -> None:
    account_of(accounts, "carl", "reviewer")
    assert signed_in(client(), "carl").get(PEOPLE).status_code == 403


def test_without_accounts_the_page_says_how_to_have_them() -> None:
    page = PeoplePage("en", "").without_accounts()
    assert "each browser is a person of its own" in page
    assert "BURNISH_ACCOUNTS=true burnish serve" in page
