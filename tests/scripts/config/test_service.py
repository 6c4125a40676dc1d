"""`service.toml` is accepted or refused as a whole; each error names the key and the fix."""

from pathlib import Path

import pytest
from stack.config import service
from stack.config.service import Request
from stack.failure import Failure

from tests.scripts.conftest import ROOT

LOGIN = """
[first_start]
command = ["python", "-m", "api.first"]
credentials = { email = "a@b.example", password = "{random}" }

[[web.smoke]]
method = "POST"
path = "/login"
body = "{first_user}"
take = { token = "session.token" }
skip_on = [401]

[[web.smoke]]
path = "/things/{token}"
headers = { Authorization = "Bearer {token}" }
body = { token = "{token}" }
"""


def faults(text: str) -> str:
    with pytest.raises(Failure) as failed:
        service.parse(text)
    assert failed.value.hints == [
        "correct service.toml; docs/your-own-service.md explains each key"
    ]
    assert failed.value.runbook
    return failed.value.observation


def smoke(lines: str) -> str:
    return f"[[web.smoke]]\npath = '/'\n{lines}\n"


def test_the_service_of_the_checkout_can_be_used() -> None:
    described = service.load(ROOT)
    assert described.smoke[0] == Request("/readyz")
    assert described.first_start
    assert described.login_paths


def test_a_file_that_is_empty_describes_the_platform_s_own_check() -> None:
    assert service.parse("").smoke == (Request("/readyz"),)
    assert service.parse("").first_start is None


def test_a_request_gets_what_an_earlier_one_took() -> None:
    login, things = service.parse(LOGIN).smoke
    assert login.filled({"first_user": '{"a": 1}'}).body == '{"a": 1}'
    taken = login.taken('{"session": {"token": "t1"}}')
    assert taken == {"token": "t1"}
    filled = things.filled(taken)
    assert filled.path == "/things/t1"
    assert filled.headers == {"Authorization": "Bearer t1"}
    assert filled.body == '{"token": "t1"}'
    assert (login.name, things.name) == (
        "POST /login with first_user",
        "/things/{token} with token",
    )


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"session": 1}', "<html>", "[" * 100_000])
def test_an_answer_without_what_is_taken_is_an_error(answer: str) -> None:
    with pytest.raises(ValueError, match=r"has no session\.token|is not JSON"):
        service.parse(LOGIN).smoke[0].taken(answer)


@pytest.mark.parametrize("token", ["a\\u0000b", "a\\r\\nHost: x", "\\ud800"])
def test_a_value_that_no_request_can_carry_is_an_error(token: str) -> None:
    with pytest.raises(ValueError, match=r"session\.token of the answer contains"):
        service.parse(LOGIN).smoke[0].taken(f'{{"session": {{"token": "{token}"}}}}')


def test_braces_of_json_are_no_placeholder() -> None:
    (request,) = service.parse(smoke('body = \'{"a": {}, "b": {"c": 1}}\'')).smoke
    assert request.placeholders == set()
    assert request.filled({}).body == request.body


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[web", "it is not TOML"),
        ("[app]\n", "app: unknown; known are first_start, web"),
        ("web = 1", "web: write a table, [web]"),
        ("[web]\nsmok = []", "web.smok: unknown; known are login_paths, smoke"),
        ("[web]\nsmoke = ['/readyz']", "web.smoke: write each request as a table of its own"),
        ("[[web.smoke]]\nstatus = 200", "web.smoke, request 1: path: write a path"),
        ("[[web.smoke]]\npath = 'readyz'", "request 1: path: write a path that begins with /"),
        ("[[web.smoke]]\npath = '/a b'", "request 1: path"),
        (smoke("methode = 'GET'"), "request 1: methode: unknown; known are body, headers"),
        (smoke("method = 'TRACE'"), "request 1: method: write one of GET"),
        (smoke("method = ['GET']"), "request 1: method: write one of GET"),
        (smoke("status = '200'"), "request 1: status: write a status from 100 to 599"),
        (smoke("status = true"), "request 1: status"),
        (smoke("status = 20"), "request 1: status"),
        (smoke("skip_on = 401"), "request 1: skip_on: write a list of statuses"),
        (smoke("body = 1"), "request 1: body: write a text, or a table"),
        (smoke("headers = { A = 1 }"), "request 1: headers: write a table of texts"),
        (smoke("headers = { 'A B' = '1' }"), "request 1: headers: 'A B' is not a header"),
        (smoke('headers = { A = "1\\r\\nB: 2" }'), "request 1: headers: 'A' is not a header"),
        (smoke('headers = { A = "1\\u0000" }'), "request 1: headers: 'A' is not a header"),
        (smoke("headers = { A = '{token}' }"), "{token}: no earlier request takes it"),
        (smoke("body = '{first_user}'"), "{first_user}: no earlier request takes it"),
        (
            smoke("take = { Token = 'a' }"),
            "request 1: take: 'Token' may contain only a-z, 0-9 and _",
        ),
        (LOGIN + smoke("headers = { A = '{first_user}' }"), "request 3: headers: {first_user}"),
        ("[web]\nlogin_paths = '/a'", "web.login_paths: write a list of texts"),
        ("[web]\nlogin_paths = ['/a) {']", "web.login_paths: '/a) {' is not a path"),
        ("[web]\nlogin_paths = ['/']", "web.login_paths: '/' is not a path"),
        ("first_start = 1", "first_start: write a table, [first_start]"),
        ("[first_start]\n", "first_start.command: write a list such as"),
        ("[first_start]\ncommand = 'a'", "first_start.command: write a list of texts"),
        ("[first_start]\ncommand = ['a']", "first_start.credentials: one value has to be"),
    ],
)
def test_a_fault_is_named_by_its_key_with_what_to_write(text: str, named: str) -> None:
    assert named in faults(text)


def test_all_faults_are_named_at_once() -> None:
    text = smoke("status = 1\nmethod = 'X'") + "[app]\n"
    assert all(key in faults(text) for key in ("app:", "status:", "method:"))


def test_a_checkout_without_the_file_says_how_it_gets_one(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"there is no service\.toml here") as failed:
        service.load(tmp_path)
    assert "docs/your-own-service.md" in failed.value.hints[0]


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / service.FILE).write_bytes("# café".encode("latin-1"))
    with pytest.raises(Failure, match=r"it is not UTF-8"):
        service.load(tmp_path)


def test_smoke_paths_are_requests_with_a_status() -> None:
    made = service.requests((("/a", 200), ("/b?x=200", 204)))
    assert [(each.path, each.status) for each in made] == [("/a", 200), ("/b?x=200", 204)]
