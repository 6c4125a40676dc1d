"""What `nginx -t` does not see: headers that would be lost, answers in another form, a host that is let through."""

import json
import re

import pytest

from api.errors import CODES, ErrorBody
from tests.contracts.nginx_files import Directive, directives, parse
from tests.contracts.tree import files, lines

ALL = directives()
ERRORS = [inner for top in parse(files("nginx/snippets/errors.conf")[0]) for inner in top.walk()]
SERVERS = [d for d in ALL if d.name == "server" and d.block]
HEADERS = "/etc/slipway/snippets/headers.conf"


def named(name: str, among: list[Directive] = ALL) -> list[Directive]:
    return [directive for directive in among if directive.name == name]


def in_files(name: str) -> set[str]:
    return {str(directive.file).removeprefix("nginx/") for directive in named(name)}


@pytest.mark.parametrize("path", files("nginx/**/*.conf"), ids=str)
def test_every_file_starts_with_its_title_and_context(path: str) -> None:
    top, *title = [line for line in lines(files(str(path))[0])[:6] if line.startswith("#")]
    assert re.fullmatch(r"# \+-+\+", top)
    box = title[: title.index(top)]
    assert box
    assert all(line.startswith("# | ") and line.endswith("|") and len(line) == len(top) for line in box)
    assert "Context" in " ".join(box)


def test_request_headers_are_set_in_one_snippet() -> None:
    assert in_files("proxy_set_header") == {"snippets/proxy.conf"}


def test_answer_headers_are_added_in_one_snippet_and_beside_the_errors() -> None:
    assert in_files("add_header") == {"snippets/headers.conf", "snippets/errors.conf"}
    assert {d.arguments[0] for d in named("add_header", ERRORS)} == {"Retry-After"}
    assert all(d.arguments[-1] == "always" for d in named("add_header"))


def test_a_block_that_adds_a_header_includes_the_others_again() -> None:
    adding = [d for d in ALL if d.has("add_header")]
    assert adding
    assert [d.arguments for d in adding if not d.has("include", HEADERS)] == []


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Forwarded-For", "$remote_addr"),
        ("X-Forwarded-Proto", "$scheme"),
        ("X-Forwarded-Host", "$host"),
        ("X-Request-ID", "$request_id"),
        ("Host", "$host"),
        ("Connection", ""),
        ("Forwarded", ""),
        ("X-Real-IP", ""),
        ("X-Forwarded-Port", ""),
        ("Proxy", ""),
    ],
)
def test_what_a_client_claims_about_itself_is_overwritten(header: str, value: str) -> None:
    assert [d.arguments[1] for d in named("proxy_set_header") if d.arguments[0] == header] == [value]


def test_nothing_a_client_wrote_is_appended_to() -> None:
    forged = re.compile(r"\$(proxy_add_x_forwarded_for|http_x_forwarded_\w+|http_host|http_x_request_id)\b")
    assert [d for d in ALL if forged.search(" ".join(d.arguments))] == []


def test_every_pass_includes_the_snippet_and_goes_to_the_live_slot() -> None:
    passing = [d for d in ALL if d.has("proxy_pass")]
    assert passing
    for block in passing:
        assert block.has("include", "/etc/slipway/snippets/proxy.conf")
    assert {tuple(d.arguments) for d in named("proxy_pass")} == {("http://live",)}


def test_the_only_upstream_is_the_live_link() -> None:
    (upstream,) = named("upstream")
    assert upstream.arguments == ["live"]
    assert [d.arguments for d in upstream.block if d.name == "server"] == [["unix:/run/slots/live.sock", "max_fails=0"]]


def ports(server: Directive) -> list[str]:
    return [d.arguments[0] for d in server.block if d.name == "listen"]


def test_an_unknown_host_gets_nothing() -> None:
    (refusing,) = [s for s in SERVERS if any("default_server" in d.arguments for d in s.block)]
    assert refusing.has("ssl_reject_handshake", "on")
    assert refusing.has("return", "444")
    assert all("default_server" in d.arguments for d in refusing.block if d.name == "listen")
    public = {port for server in SERVERS for port in ports(server) if ":" not in port}
    assert public == set(ports(refusing))


def test_a_server_without_a_name_listens_inside_the_container_alone() -> None:
    for server in SERVERS:
        is_named = server.has("include", "/tmp/nginx/server_name.conf")
        is_inside = all(port.startswith("127.0.0.1:") for port in ports(server))
        assert is_named or is_inside or server.has("return", "444")


def test_every_answering_public_server_has_the_headers() -> None:
    for server in SERVERS:
        if server.has("include", "/tmp/nginx/server_name.conf"):
            assert server.has("include", HEADERS)


def test_every_error_page_has_its_answer_and_every_answer_its_error_page() -> None:
    targets = {d.arguments[-1] for d in named("error_page")}
    answers = {d.arguments[0] for d in named("location", ERRORS)}
    assert targets == answers


def bodies() -> list[tuple[str, int, str]]:
    return [
        (location.arguments[0], int(answer.arguments[0]), answer.arguments[1])
        for location in named("location", ERRORS)
        for answer in location.walk()
        if answer.name == "return"
    ]


@pytest.mark.parametrize(("location", "status", "body"), bodies())
def test_nginx_answers_errors_in_the_form_of_the_api(location: str, status: int, body: str) -> None:
    answer = json.loads(body)
    assert list(answer) == list(ErrorBody.model_fields)
    ErrorBody.model_validate(answer)
    assert answer["details"] is None
    assert answer["request_id"] == "$request_id"
    assert answer["error"] == CODES.get(status, answer["error"]) or status == 400
    assert re.fullmatch(r"[a-z_]+", answer["error"])
    number = location.removeprefix("@error_")
    assert number in {str(status), "494", "497", "upstream"}


def test_every_location_with_an_answer_says_that_it_is_json() -> None:
    assert all(d.has("default_type", "application/json") for d in named("location", ERRORS))


def test_the_access_log_is_json_and_leaves_the_query_string_out() -> None:
    (form,) = named("log_format")
    assert form.arguments[:2] == ["slipway", "escape=json"]
    text = "".join(form.arguments[2:])
    entry = json.loads(re.sub(r":(\$\w+)", r':"\1"', text))
    assert {"ts", "service", "action", "request_id", "status", "upstream_seconds", "slot", "release"} <= set(entry)
    assert not re.search(r"\$(request_uri|args|query_string|request|http_authorization|http_cookie)\b", text)
