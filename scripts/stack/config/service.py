"""Reads `service.toml`, which describes the service that the scripts run.

Nothing else under scripts/ knows a route, a command or a user of the service. The image contains
the file too; docs/decisions/0010-the-service-is-described-by-a-file.md explains the two copies.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stack.config.environment import RUNBOOK
from stack.failure import Failure

FILE = "service.toml"
# The placeholder for the contents of secrets/first_user.json.
FIRST_USER = "first_user"
# A value in the first user's credentials; the first start replaces it with a random password.
RANDOM = "{random}"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_PATH = re.compile(r"/[!-~]*")
# These paths become part of a regular expression of nginx.
_PREFIX = re.compile(r"(/[A-Za-z0-9_-]+)+")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Request:
    """A request of the smoke test; path, headers and body may contain `{placeholders}`.

    Attributes:
        status: the expected status.
        take: names of placeholders, each with the key of the JSON answer that fills it; a dotted
            key leads into an object of the answer.
        skip_on: statuses that skip this request and the requests that need its values.
    """

    path: str
    method: str = "GET"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    take: Mapping[str, str] = field(default_factory=dict)
    skip_on: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name of the request in messages."""
        name = self.path if self.method == "GET" else f"{self.method} {self.path}"
        return " with ".join([name, *sorted(self.placeholders)])

    @property
    def placeholders(self) -> set[str]:
        """The placeholders that need a value before the request can be sent."""
        texts = [self.path, self.body, *self.headers.values()]
        return {name for text in texts for name in _PLACEHOLDER.findall(text)}

    @property
    def is_repeatable(self) -> bool:
        """Whether anybody may send it at any time: it changes nothing, and needs no value."""
        return self.method == "GET" and not (self.body or self.take or self.placeholders)

    def filled(self, values: Mapping[str, str]) -> "Request":
        """Return the request with each placeholder replaced by its value."""

        def fill(text: str) -> str:
            return _PLACEHOLDER.sub(lambda match: values[match[1]], text)

        headers = {name: fill(text) for name, text in self.headers.items()}
        return replace(self, path=fill(self.path), headers=headers, body=fill(self.body))

    def taken(self, answer: str) -> dict[str, str]:
        """Return the values of the answer that later requests need.

        Raises:
            ValueError: naming the key that the answer lacks, or whose value cannot be sent.
        """
        values = {}
        for name, key in self.take.items():
            try:
                value: Any = json.loads(answer)
            except (ValueError, RecursionError):
                raise ValueError("the answer is not JSON") from None
            for part in key.split("."):
                if not isinstance(value, dict) or part not in value:
                    raise ValueError(f"the answer has no {key}")
                value = value[part]
            text = value if isinstance(value, str) else json.dumps(value)
            if not text.isprintable():  # it would end a header or a command's argument
                raise ValueError(f"{key} of the answer contains a character that cannot be sent")
            values[name] = text
        return values


@dataclass(frozen=True)
class FirstStart:
    """The creation of the first user.

    Attributes:
        command: runs in a container of the API, with the credentials as JSON on standard input.
            It exits with 0 if the user exists with these credentials, and with EXISTS if the user
            exists with others.
        credentials: the command's input, kept in secrets/first_user.json.
    """

    EXISTS = 3

    command: tuple[str, ...]
    credentials: Mapping[str, str]


@dataclass(frozen=True)
class Service:
    """The service as its file describes it; without a file only the platform's check remains."""

    smoke: tuple[Request, ...] = (Request("/readyz"),)
    login_paths: tuple[str, ...] = ()
    first_start: FirstStart | None = None


def load(root: Path) -> Service:
    """Read the file of a checkout.

    Raises:
        Failure: naming every wrong key at once.
    """
    file = root / FILE
    if not file.is_file():
        raise Failure(
            f"there is no {FILE} here",
            hints=[f"git checkout {FILE}, or write one: docs/your-own-service.md explains it"],
            runbook=RUNBOOK,
        )
    try:
        return parse(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise _failure(FILE, [f"it is not UTF-8: {error}"]) from None


def parse(text: str, name: str = FILE) -> Service:
    """Return the service that the text describes; errors name the file `name`.

    Raises:
        Failure: naming every wrong key at once.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _failure(name, [f"it is not TOML: {error}"]) from None
    reader = _Reader()
    service = reader.service(table)
    if reader.faults:
        raise _failure(name, reader.faults)
    return service


def requests(pairs: Iterable[tuple[str, int]]) -> tuple[Request, ...]:
    """Return the requests of SMOKE_PATHS: each a path with its status."""
    return tuple(Request(path, status=status) for path, status in pairs)


def _failure(name: str, faults: list[str]) -> Failure:
    return Failure(
        "; ".join([f"{name} cannot be used", *faults]),
        hints=[f"correct {FILE}; docs/your-own-service.md explains each key"],
        runbook=RUNBOOK,
    )


class _Reader:
    """Converts tables to objects and collects every fault by its key."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def service(self, table: dict[str, Any]) -> Service:
        self._refuse_unknown(table, {"web", "first_start"}, "")
        web = self._table(table, "web", "")
        self._refuse_unknown(web, {"smoke", "login_paths"}, "web.")
        first = self._first_start(table) if "first_start" in table else None
        smoke = tuple(self._smoke(web, has_first_user=first is not None))
        prefixes = self._texts(web, "login_paths", "web.")
        for prefix in prefixes:
            if not _PREFIX.fullmatch(prefix):
                self._fault("web.login_paths", f"{prefix!r} is not a path such as /accounts")
        return Service(smoke or Service.smoke, prefixes, first)

    def _smoke(self, web: dict[str, Any], *, has_first_user: bool) -> Iterator[Request]:
        listed = web.get("smoke", [])
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            self._fault("web.smoke", "write each request as a table of its own, [[web.smoke]]")
            return
        known = {FIRST_USER} if has_first_user else set()
        for number, table in enumerate(listed, 1):
            where = f"web.smoke, request {number}: "
            request = self._request(table, where)
            for name in sorted(request.placeholders - known):
                self._fault(f"{where}{{{name}}}", "no earlier request takes it")
            known |= set(request.take)
            yield request

    def _request(self, table: dict[str, Any], where: str) -> Request:
        known = {"path", "method", "status", "headers", "body", "take", "skip_on"}
        self._refuse_unknown(table, known, where)
        method, status = table.get("method", "GET"), table.get("status", 200)
        if method not in METHODS:
            self._fault(f"{where}method", f"write one of {', '.join(METHODS)}")
        if not _is_status(status):
            self._fault(f"{where}status", "write a status from 100 to 599")
        return Request(
            self._path(table, where),
            str(method),
            status,
            self._headers(table, where),
            self._body(table, where),
            self._take(table, where),
            self._skip_on(table, where),
        )

    def _path(self, table: dict[str, Any], where: str) -> str:
        path = str(table.get("path", ""))
        if not _PATH.fullmatch(path):
            self._fault(f"{where}path", "write a path that begins with /, without spaces")
        if FIRST_USER in _PLACEHOLDER.findall(path):
            self._fault(f"{where}path", _IN_BODY_ONLY)
        return path

    def _headers(self, table: dict[str, Any], where: str) -> dict[str, str]:
        headers = self._text_table(table, "headers", where)
        for name, text in headers.items():
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not text.isprintable():
                self._fault(f"{where}headers", f"{name!r} is not a header of one line")
            if FIRST_USER in _PLACEHOLDER.findall(text):
                self._fault(f"{where}headers", _IN_BODY_ONLY)
        return headers

    def _body(self, table: dict[str, Any], where: str) -> str:
        body = table.get("body", "")
        if not isinstance(body, str | dict):
            self._fault(f"{where}body", "write a text, or a table that is sent as JSON")
        return body if isinstance(body, str) else json.dumps(body, default=str)

    def _take(self, table: dict[str, Any], where: str) -> dict[str, str]:
        take = self._text_table(table, "take", where)
        for name in take:
            if not _NAME.fullmatch(name):
                self._fault(f"{where}take", f"{name!r} may contain only a-z, 0-9 and _")
        return take

    def _skip_on(self, table: dict[str, Any], where: str) -> tuple[int, ...]:
        statuses = table.get("skip_on", [])
        if isinstance(statuses, list) and all(_is_status(status) for status in statuses):
            return tuple(statuses)
        self._fault(f"{where}skip_on", "write a list of statuses from 100 to 599")
        return ()

    def _first_start(self, table: dict[str, Any]) -> FirstStart:
        first = self._table(table, "first_start", "")
        self._refuse_unknown(first, {"command", "credentials"}, "first_start.")
        command = self._texts(first, "command", "first_start.")
        if not command:
            self._fault("first_start.command", 'write a list such as ["python", "-m", "api.first"]')
        credentials = self._text_table(first, "credentials", "first_start.")
        if RANDOM not in credentials.values():
            self._fault("first_start.credentials", f'one value has to be "{RANDOM}", the password')
        return FirstStart(command, credentials)

    def _table(self, table: dict[str, Any], key: str, where: str) -> dict[str, Any]:
        value = table.get(key, {})
        if isinstance(value, dict):
            return value
        self._fault(f"{where}{key}", f"write a table, [{key}]")
        return {}

    def _text_table(self, table: dict[str, Any], key: str, where: str) -> dict[str, str]:
        value = table.get(key, {})
        if isinstance(value, dict) and all(isinstance(each, str) for each in value.values()):
            return value
        self._fault(f"{where}{key}", 'write a table of texts, { name = "text" }')
        return {}

    def _texts(self, table: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
        value = table.get(key, [])
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        self._fault(f"{where}{key}", 'write a list of texts, ["text"]')
        return ()

    def _refuse_unknown(self, table: dict[str, Any], known: set[str], where: str) -> None:
        for key in table.keys() - known:
            self._fault(f"{where}{key}", f"unknown; known are {', '.join(sorted(known))}")

    def _fault(self, key: str, fix: str) -> None:
        self.faults.append(f"{key}: {fix}")


_IN_BODY_ONLY = (
    f"{{{FIRST_USER}}} contains a password and may be used only in a body: "
    "other users of the host see a program's arguments"
)


def _is_status(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599
