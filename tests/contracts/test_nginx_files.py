"""Checks rules that `nginx -t` does not check: headers, format of answers, unknown hosts."""

import json
import re
from pathlib import Path

import pytest

from api.app import create_app
from api.requests.errors import CODES, ErrorBody
from counter import datagrams
from tests.api.settings_for_tests import make_settings
from tests.contracts.compose_files import SERVICES, defaulted, size_bytes
from tests.contracts.nginx_files import Directive, directives, parse, value
from tests.contracts.tree import files, lines, text

ALL = directives()
ERRORS = [inner for top in parse(files("nginx/snippets/errors.conf")[0]) for inner in top.walk()]
SERVERS = [d for d in ALL if d.name == "server" and d.block]
CONFIGURATION = "/etc/slipway/current"
HEADERS = f"{CONFIGURATION}/snippets/headers.conf"
MEBIBYTE = 1024**2
NGINX_PROCESS_BYTES = 24 * MEBIBYTE  # measured: 8 MB idle; the rest is for connection buffers


def named(name: str, among: list[Directive] = ALL) -> list[Directive]:
    return [directive for directive in among if directive.name == name]


def in_files(name: str) -> set[str]:
    return {str(directive.file).removeprefix("nginx/") for directive in named(name)}


OURS = [path for path in files("nginx/**/*.conf") if path.parent != Path("nginx/own")]


@pytest.mark.parametrize("path", OURS, ids=str)
def test_every_file_starts_with_its_title_and_context(path: str) -> None:
    top, *title = [line for line in lines(files(str(path))[0])[:6] if line.startswith("#")]
    assert re.fullmatch(r"# \+-+\+", top)
    box = title[: title.index(top)]
    assert box
    assert all(
        line.startswith("# | ") and line.endswith("|") and len(line) == len(top) for line in box
    )
    assert "Context" in " ".join(box)


def test_request_headers_are_set_in_one_snippet() -> None:
    assert in_files("proxy_set_header") == {"snippets/proxy.conf"}


def test_answer_headers_are_added_in_one_snippet_and_beside_the_errors() -> None:
    assert in_files("add_header") == {"snippets/headers.conf", "snippets/errors.conf"}
    assert {d.arguments[0] for d in named("add_header", ERRORS)} == {"Allow", "Retry-After"}
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
    assert [d.arguments[1] for d in named("proxy_set_header") if d.arguments[0] == header] == [
        value
    ]


def test_nothing_a_client_wrote_is_appended_to() -> None:
    forged = re.compile(
        r"\$(proxy_add_x_forwarded_for|http_x_forwarded_\w+|http_host|http_x_request_id)\b"
    )
    assert [d for d in ALL if forged.search(" ".join(d.arguments))] == []


def test_every_pass_includes_the_snippet_and_goes_to_a_slot() -> None:
    passing = [d for d in ALL if d.has("proxy_pass")]
    assert passing
    for block in passing:
        assert block.has("include", f"{CONFIGURATION}/snippets/proxy.conf")
    slots = {("http://live",), ("http://blue",), ("http://green",)}
    targets = {tuple(d.arguments) for d in named("proxy_pass")}
    assert targets == {*slots, ("http://unix:/run/counter/answers.sock",)}


def test_a_public_server_passes_to_the_live_slot_alone() -> None:
    for server in SERVERS:
        if server.has("include", "/tmp/nginx/server_name.conf"):
            assert {tuple(d.arguments) for d in server.walk() if d.name == "proxy_pass"} <= {
                ("http://live",)
            }


def test_the_public_server_takes_the_operator_s_locations_before_its_own_expressions() -> None:
    """nginx uses the first expression that matches, so the operator's expressions come first."""
    own = f"{CONFIGURATION}/own/*.conf"
    (server,) = [server for server in SERVERS if server.has("include", own)]
    assert ports(server) == ["8443"]
    assert server.has("include", "/tmp/nginx/server_name.conf")
    order = [
        "own" if directive.arguments == [own] else directive.name
        for directive in server.block
        if directive.name == "location" or directive.arguments == [own]
    ]
    assert order[0] == "own"
    assert "location" in order


def test_every_upstream_is_one_socket_and_none_is_a_container() -> None:
    sockets = {
        d.arguments[0]: [s.arguments for s in d.block if s.name == "server"]
        for d in named("upstream")
    }
    assert sockets == {
        name: [[f"unix:/run/slots/{name}.sock", "max_fails=0"]]
        for name in ("live", "blue", "green")
    }


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
    targets = {d.arguments[-1] for d in named("error_page", ERRORS)}
    answers = {d.arguments[-1] for d in named("location", ERRORS)}
    assert targets == answers


def test_an_answer_is_an_address_that_no_client_may_ask_for() -> None:
    """nginx skips a named location if the address is malformed, and answers 500 in HTML."""
    for location in named("location", ERRORS):
        assert location.arguments[0] == "="
        assert location.arguments[1].startswith("/errors/")
        assert location.has("internal")


def test_nothing_of_the_server_comes_before_an_error_s_answer() -> None:
    """nginx runs a server's `return` and `rewrite` again when it redirects to an error page."""
    for server in SERVERS:
        if server.has("include", f"{CONFIGURATION}/snippets/errors.conf"):
            assert not {d.name for d in server.block} & {"return", "rewrite"}


def bodies() -> list[tuple[str, int, str]]:
    return [
        (
            location.arguments[-1].removeprefix("/errors/"),
            int(answer.arguments[0]),
            answer.arguments[1],
        )
        for location in named("location", ERRORS)
        for answer in location.walk()
        if answer.name == "return"
    ]


# Each entry has a location, a status and an error code. nginx has statuses of its own, such as 497.
# If the API has an error code for the status, nginx returns the same code.
ANSWERS = {
    ("400", 400, CODES[400]),
    ("403", 403, "forbidden"),
    ("404", 404, CODES[404]),
    ("405", 405, CODES[405]),
    ("413", 413, CODES[413]),
    ("414", 414, "uri_too_long"),
    ("421", 421, "misdirected_request"),
    ("429", 429, "too_many_requests"),
    ("494", 431, "headers_too_large"),
    ("497", 400, "tls_required"),
    ("500", 500, "internal_error"),
    ("501", 501, "not_implemented"),
    ("504", 504, "upstream_timeout"),
    ("505", 505, "version_not_supported"),
    ("upstream", 502, "upstream_broken"),
    ("upstream", 503, "service_unavailable"),
}


def test_each_error_has_its_status_and_its_word() -> None:
    assert {(name, status, json.loads(body)["error"]) for name, status, body in bodies()} == ANSWERS


@pytest.mark.parametrize(("name", "status", "body"), bodies())
def test_nginx_answers_errors_in_the_form_of_the_api(name: str, status: int, body: str) -> None:
    answer = json.loads(body)
    assert list(answer) == list(ErrorBody.model_fields)
    ErrorBody.model_validate(answer)
    assert answer["details"] is None
    assert answer["request_id"] == "$request_id"
    assert re.fullmatch(r"[A-Z].*\.", answer["message"])
    (page,) = [
        d.arguments for d in named("error_page", ERRORS) if d.arguments[-1] == f"/errors/{name}"
    ]
    # With `=` the client gets the status of the error page; without `=`, the status of the error.
    assert ("=" in page) is (page[0] != str(status) or name == "upstream")


def test_the_methods_that_pass_are_those_that_a_refusal_names_and_the_api_knows() -> None:
    (condition,) = [d for d in ALL if d.name == "if" and "($request_method" in d.arguments]
    passed = set(re.findall(r"[A-Z]+", " ".join(condition.arguments)))
    (allow,) = [d.arguments[1] for d in named("add_header", ERRORS) if d.arguments[0] == "Allow"]
    assert passed == set(allow.split(", "))
    used = {
        method.upper()
        for methods in create_app(make_settings()).openapi()["paths"].values()
        for method in methods
    }
    assert used <= passed


def test_every_location_with_an_answer_says_that_it_is_json() -> None:
    assert all(d.has("default_type", "application/json") for d in named("location", ERRORS))


def log_format(name: str) -> Directive:
    (form,) = [d for d in named("log_format") if d.arguments[0] == name]
    return form


def test_the_access_log_is_json_and_leaves_the_query_string_out() -> None:
    form = log_format("slipway")
    assert form.arguments[1] == "escape=json"
    line = "".join(form.arguments[2:])
    entry = json.loads(re.sub(r":(\$\w+)", r':"\1"', line))
    assert {
        "ts",
        "service",
        "action",
        "request_id",
        "status",
        "upstream_seconds",
        "slot",
        "release",
    } <= set(entry)
    assert not re.search(
        r"\$(request_uri|args|query_string|request|http_authorization|http_cookie)\b", line
    )
    # After an error, $uri and $request_method are those of the error page, not of the request.
    assert not re.search(r"\$(uri|request_method)\b", line)


def pattern(variable: str) -> re.Pattern[str]:
    """Return the expression with which a map extracts a part of a request."""
    (block,) = [d.block for d in named("map") if d.arguments[1] == variable]
    (expression,) = [d.name for d in block if d.name.startswith("~")]
    return re.compile(expression[1:].replace("(?<", "(?P<"))


@pytest.mark.parametrize(
    ("line", "method", "path"),
    [
        ("GET /v1/items?token=hidden HTTP/1.1", "GET", "/v1/items"),
        ("POST /v1/items#hidden HTTP/2.0", "POST", "/v1/items"),
        ("PUT https://user:hidden@a.example:8443/v1/items?b HTTP/1.1", "PUT", "/v1/items"),
        ("GET /%00?hidden HTTP/1.1", "GET", "/%00"),
        ("GET http://a.example?hidden HTTP/1.1", "GET", ""),
        ("SSH-2.0-hidden", None, None),
    ],
)
def test_the_log_s_method_and_path_are_those_of_the_request(
    line: str, method: str | None, path: str | None
) -> None:
    matches = pattern("$asked_method").search(line), pattern("$asked_path").search(line)
    assert [match and match[1] for match in matches] == [method, path]


def test_the_log_s_time_has_the_form_of_the_api_s() -> None:
    form = log_format("slipway")
    assert (
        json.loads(re.sub(r":(\$\w+)", r':"\1"', "".join(form.arguments[2:])))["ts"] == "$ended_at"
    )
    assert pattern("$ended_at").sub(r"\1\2+00:00", "2026-11-21T03:08:58+00:00 1795230538.965") == (
        "2026-11-21T03:08:58.965+00:00"
    )
    assert "ENV TZ=UTC\n" in text("nginx/Dockerfile")


def test_every_server_sends_each_of_its_requests_to_the_counter() -> None:
    """The counter counts an answer of nginx without a datagram as lost."""
    count = f"{CONFIGURATION}/snippets/count.conf"
    (http,) = [d for d in ALL if d.name == "include" and d.file.name == "10-log.conf"]
    assert http.arguments == [count]
    logs = [d for d in named("access_log") if d.file.name not in {"10-log.conf", "count.conf"}]
    assert logs == [], "an access_log of a server replaces the one of the counter"
    inside = [s for s in SERVERS if all(port.startswith("127.0.0.1:") for port in ports(s))]
    assert [s for s in SERVERS if s.has("include", count)] == [SERVERS[0], *inside]
    assert SERVERS[0].has("return", "444")


def test_the_counter_gets_the_fields_that_it_reads() -> None:
    form = "".join(log_format("counter").arguments[2:])
    assert form.replace(r"\t", "\t").split("\t") == [
        "$asked_from",
        "$upstream_http_x_slipway_slot",
        "$status",
        "$upstream_status",
        "$upstream_header_time",
        "$remote_addr",
        "$watch",
        "$asked_method",
        "$asked_path",
    ]
    assert len(form.split(r"\t")) == datagrams.FIELDS


def test_each_port_inside_the_container_is_no_traffic() -> None:
    (block,) = [d.block for d in named("map") if d.arguments[1] == "$asked_from"]
    inside = {d.name for d in block if d.arguments == ["inside"]}
    listening = {port for server in SERVERS for port in ports(server)}
    assert inside == {port.rpartition(":")[2] for port in listening if ":" in port}
    assert [d.arguments for d in block if d.name == "default"] == [["public"]]


def only(name: str, file: str) -> int:
    """Return the number that is the last word of a directive."""
    return int(value(name, file).split()[-1])


def test_what_one_client_may_upload_at_once_fits_the_tmpfs_and_the_memory() -> None:
    nginx = SERVICES["nginx"]
    most = only("limit_conn", "conf.d/70-public.conf")
    (mount,) = nginx["tmpfs"]
    tmpfs = size_bytes(mount.partition("size=")[2])
    assert most * size_bytes(value("client_max_body_size", "conf.d/20-limits.conf")) <= 0.8 * tmpfs
    processes = 1 + only("worker_processes", "nginx.conf")
    buffers = most * size_bytes(value("client_body_buffer_size", "conf.d/20-limits.conf"))
    assert tmpfs + buffers + processes * NGINX_PROCESS_BYTES <= size_bytes(
        defaulted(nginx["mem_limit"])
    )
    assert only("http2_max_concurrent_streams", "conf.d/20-limits.conf") <= most


def test_the_number_of_processes_is_written_down_and_fits_the_limit() -> None:
    """`auto` starts one process for each core of the host; 64 would exceed `pids_limit`."""
    processes = only("worker_processes", "nginx.conf")
    assert processes >= float(defaulted(SERVICES["nginx"]["cpus"]))
    # After a reload the old processes run for a while; each health check is a process as well.
    assert 1 + 3 * processes <= SERVICES["nginx"]["pids_limit"] / 2
