"""A token needs our issuer, audience and signature, and a valid time; few hashes run at once."""

import asyncio
import base64
import fcntl
import re
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import jwt
import pytest
from pwdlib.hashers.argon2 import Argon2Hasher
from pydantic import SecretStr

from api.requests.tokens import LEEWAY_SECONDS, Tokens
from api.storing.identifiers import new_id
from api.users.passwords import DUMMY_HASH, HASH_KIBIBYTES, HASHES_AT_ONCE, LANES, PASSES, Passwords
from api.users.refresh_tokens import REPEAT_SECONDS, TOKEN_BYTES, RefreshTokens
from tests.api.settings_for_tests import TOKEN_KEY, make_settings
from tests.contracts.tree import text

USER = uuid4()


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(make_settings())


def test_a_token_leads_back_to_its_user(tokens: Tokens) -> None:
    assert tokens.user_id(tokens.issue(USER)) == USER


def test_a_token_is_over_after_its_lifetime_and_the_leeway(tokens: Tokens) -> None:
    over = time.time() - tokens.lifetime_seconds
    assert tokens.user_id(tokens.issue(USER, over - LEEWAY_SECONDS - 2)) is None
    assert tokens.user_id(tokens.issue(USER, over - LEEWAY_SECONDS + 5)) == USER


def test_a_token_that_is_remembered_is_over_in_time_too(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    token = tokens.issue(USER, now)
    assert tokens.user_id(token) == USER
    tokens.key = OTHER_KEY  # so that a second verification would fail
    over = int(now) + tokens.lifetime_seconds + LEEWAY_SECONDS
    monkeypatch.setattr(time, "time", lambda: over - 0.001)
    assert tokens.user_id(token) == USER
    monkeypatch.setattr(time, "time", lambda: float(over))
    assert tokens.user_id(token) is None


def test_a_verified_token_is_not_verified_again_and_few_are_remembered(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.requests.tokens.MOST_KNOWN", 2)
    users = [uuid4() for _ in range(3)]
    issued = [tokens.issue(user) for user in users]
    assert [tokens.user_id(token) for token in issued] == users
    tokens.key = OTHER_KEY  # so that a second verification would fail
    assert [tokens.user_id(token) for token in issued] == [None, *users[1:]]
    assert tokens.user_id(altered(issued[1])) is None, "an altered token is not in the cache"


def altered(token: str) -> str:
    """Change the first character of the signature, in which every bit is significant."""
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


@pytest.mark.parametrize(
    "other",
    [
        {"token_issuer": "someone"},
        {"token_audience": "another-api"},
        {"token_key": SecretStr(TOKEN_KEY[::-1])},
    ],
)
def test_a_token_of_another_issuer_audience_or_key_is_refused(
    tokens: Tokens, other: dict[str, object]
) -> None:
    assert tokens.user_id(Tokens(make_settings(**other)).issue(USER)) is None


OTHER_KEY = TOKEN_KEY[::-1]


def test_a_token_names_its_key_and_not_the_key_itself(tokens: Tokens) -> None:
    name = jwt.get_unverified_header(tokens.issue(USER))["kid"]
    assert (
        name
        != jwt.get_unverified_header(
            Tokens(make_settings(token_key=SecretStr(OTHER_KEY))).issue(USER)
        )["kid"]
    )
    assert name not in TOKEN_KEY


def test_no_token_is_refused_while_the_key_is_rotated() -> None:
    """In each step some processes still have the settings of the previous step."""
    old, new = SecretStr(TOKEN_KEY), SecretStr(OTHER_KEY)
    steps = [
        Tokens(make_settings(token_key=old)),
        Tokens(make_settings(token_key=old, token_key_previous=new)),
        Tokens(make_settings(token_key=new, token_key_previous=old)),
    ]
    for before, after in pairwise(steps):
        assert after.user_id(before.issue(USER)) == USER
        assert before.user_id(after.issue(USER)) == USER
    is_over = Tokens(make_settings(token_key=new))
    assert is_over.user_id(steps[2].issue(USER)) == USER
    assert is_over.user_id(steps[1].issue(USER)) is None


def test_the_previous_key_verifies_only_and_all_of_the_rules_hold_for_it() -> None:
    tokens = Tokens(make_settings(token_key_previous=SecretStr(OTHER_KEY)))
    earlier = Tokens(make_settings(token_key=SecretStr(OTHER_KEY)))
    assert Tokens(make_settings()).user_id(tokens.issue(USER)) == USER, "signed with another key"
    assert tokens.user_id(earlier.issue(USER, time.time() - 3600)) is None
    assert tokens.user_id(altered(earlier.issue(USER))) is None
    assert (
        tokens.user_id(
            Tokens(make_settings(token_key=SecretStr(OTHER_KEY), token_issuer="x")).issue(USER)
        )
        is None
    )


def test_a_token_from_before_keys_had_names_is_accepted(tokens: Tokens) -> None:
    claims = jwt.decode(tokens.issue(USER), options={"verify_signature": False})
    assert tokens.user_id(jwt.encode(claims, TOKEN_KEY, algorithm="HS256")) == USER


@pytest.mark.parametrize("missing", ["sub", "iss", "aud", "exp", "iat"])
def test_a_token_without_a_required_claim_is_refused(tokens: Tokens, missing: str) -> None:
    claims = jwt.decode(tokens.issue(USER), options={"verify_signature": False})
    del claims[missing]
    assert tokens.user_id(jwt.encode(claims, TOKEN_KEY, algorithm="HS256")) is None


def test_an_unsigned_token_is_refused(tokens: Tokens) -> None:
    claims = jwt.decode(tokens.issue(USER), options={"verify_signature": False})
    assert tokens.user_id(jwt.encode(claims, "", algorithm="none")) is None
    assert tokens.user_id("not.a.token") is None


def test_a_short_key_is_an_error_and_not_a_warning() -> None:
    weak = make_settings()
    tokens = Tokens(weak)
    tokens.key = "short"
    with pytest.raises(jwt.InvalidKeyError):
        tokens.issue(USER)


def test_a_password_fits_its_hash_only() -> None:
    passwords = Passwords()

    async def check() -> tuple[bool, bool]:
        stored = await passwords.hash("correct horse battery")
        assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        return await passwords.verify("correct horse battery", stored), await passwords.verify(
            "other", stored
        )

    assert asyncio.run(check()) == (True, False)


def test_a_hash_of_another_profile_stays_good() -> None:
    stored = Argon2Hasher(time_cost=3, memory_cost=65_536, parallelism=4).hash(
        "correct horse battery"
    )
    assert asyncio.run(Passwords().verify("correct horse battery", stored))
    assert not asyncio.run(Passwords().verify("other", stored))


def test_of_the_hashes_that_take_more_one_is_verified_at_a_time_by_all_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("api.users.passwords.COSTLY_LOCK", tmp_path / "lock")
    costly = Argon2Hasher(memory_cost=2 * HASH_KIBIBYTES).hash("known")
    with (tmp_path / "lock").open("w") as other, ThreadPoolExecutor() as threads:
        fcntl.flock(other, fcntl.LOCK_EX)  # as another process would
        waiting = threads.submit(lambda: asyncio.run(Passwords().verify("known", costly)))
        assert asyncio.run(Passwords().verify("known", None)) is False, "other logins do not wait"
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        fcntl.flock(other, fcntl.LOCK_UN)
        assert waiting.result(60)


def test_a_hash_of_no_known_form_opens_nothing() -> None:
    assert asyncio.run(Passwords().verify("anything", "not a hash")) is False


def test_an_unknown_user_costs_as_much_as_a_known_one() -> None:
    assert not Argon2Hasher(PASSES, HASH_KIBIBYTES, LANES).check_needs_rehash(DUMMY_HASH)
    assert asyncio.run(Passwords().verify("anything", None)) is False


def test_the_password_of_the_dummy_hash_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.users.passwords.DUMMY_HASH", Argon2Hasher().hash("known"))
    assert asyncio.run(Passwords().verify("known", None)) is False


def test_no_more_hashes_run_at_once_than_memory_is_meant_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running, most = 0, 0

    async def fake_thread(*_: object) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return True

    async def many() -> None:
        passwords = Passwords()
        monkeypatch.setattr(asyncio, "to_thread", fake_thread)
        await asyncio.gather(*(passwords.verify("x", "hash") for _ in range(10)))

    asyncio.run(many())
    assert most == HASHES_AT_ONCE


def test_the_next_refresh_token_is_the_same_each_time_and_cannot_be_known_without_the_key() -> None:
    mine, other = (
        RefreshTokens(make_settings()),
        RefreshTokens(make_settings(token_key=SecretStr(OTHER_KEY))),
    )
    following = mine.successor("first")
    assert following == mine.successor("first")
    assert (
        len(
            {
                following,
                mine.successor("second"),
                mine.successor(following),
                other.successor("first"),
            }
        )
        == 4
    )
    assert len(base64.urlsafe_b64decode(following + "=")) == TOKEN_BYTES


def test_a_lost_answer_may_be_repeated_after_nginx_has_given_up() -> None:
    limit = re.search(
        r"^proxy_read_timeout (\d+)s;$", text("nginx/snippets/proxy.conf"), re.MULTILINE
    )
    assert limit
    assert int(limit[1]) < REPEAT_SECONDS <= 60


def test_identifiers_sort_by_time_and_are_version_7() -> None:
    first = new_id()
    time.sleep(0.002)
    second = new_id()
    assert first < second
    assert (first.version, first.variant) == (7, "specified in RFC 4122")
