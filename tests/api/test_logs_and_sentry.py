"""Log lines have one field scheme; error reports carry nothing of the request."""

import json
import logging
import logging.config
from typing import Any

import pytest
import sentry_sdk
from pydantic import SecretStr
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from api import context
from api.logs import LineFormatter, log_config
from api.sentry import flush_sentry, scrub, start_sentry
from tests.api.settings_for_tests import make_settings


def line(**extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("api.items", logging.INFO, "file.py", 1, "item %s", ("made",), None)
    vars(record).update(extra)
    written: dict[str, Any] = json.loads(LineFormatter("api", "blue", "r-1").format(record))
    return written


def test_a_line_has_the_fixed_fields_then_its_extras() -> None:
    context.request_id.set("request-0001")
    written = line(action="item_created", item="x")
    assert list(written)[:9] == [
        "ts",
        "level",
        "logger",
        "action",
        "message",
        "service",
        "slot",
        "release",
        "request_id",
    ]
    assert written["ts"].endswith("+00:00")
    assert (written["action"], written["message"], written["item"]) == ("item_created", "item made", "x")
    assert (written["service"], written["slot"], written["release"]) == ("api", "blue", "r-1")
    assert written["request_id"] == "request-0001"


def test_noise_of_servers_is_dropped() -> None:
    assert {"color_message", "taskName"}.isdisjoint(line(color_message="\x1b[1m", taskName="t"))


def test_a_record_of_the_queue_carries_the_request_id_of_its_job() -> None:
    job = {"id": 7, "task_name": "exports.write", "attempts": 1, "task_kwargs": {"request_id": "request-0007"}}
    written = line(job=job)
    assert written["request_id"] == "request-0007"
    assert written["job"] == {"id": 7, "task_name": "exports.write", "attempts": 1}


def test_the_configuration_is_complete_for_gunicorn(capsys: pytest.CaptureFixture[str]) -> None:
    config = log_config(make_settings())
    assert {"gunicorn.error", "gunicorn.access", "uvicorn.error"} <= set(config["loggers"])
    before = logging.root.handlers[:]
    try:
        logging.config.dictConfig(config)
        logging.getLogger("gunicorn.error").info("booted")
        logging.getLogger("gunicorn.access").info("GET /?token=query-secret")
    finally:
        logging.root.handlers[:] = before
        for name in config["loggers"]:
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
    out = capsys.readouterr().out
    assert [json.loads(text)["message"] for text in out.splitlines()] == ["booted"]


class Kept(Transport):
    """Keeps what would leave the process."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.extend(item.payload.json or {} for item in envelope.items)


def fail(message: str) -> RuntimeError:
    """Return an error with a traceback whose frames hold the message in a variable."""
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError(message)
    return caught.value


@pytest.fixture
def sent() -> Any:
    transport = Kept()
    settings = make_settings(sentry_dsn=SecretStr("https://key@sentry.invalid/1"))
    start_sentry(settings, transport)
    yield transport.sent
    flush_sentry()
    sentry_sdk.init()


def test_nothing_of_the_request_leaves(sent: list[dict[str, Any]]) -> None:
    authorization = "Bearer header-secret"
    context.request_id.set("request-0002")
    sentry_sdk.set_extra("body", "body-secret")
    sentry_sdk.add_breadcrumb(message="crumb-secret")
    sentry_sdk.get_isolation_scope().set_user({"email": "user-secret"})
    cookie = "session=cookie-secret"
    error = fail(f"GET /x?token=query-secret {authorization} Cookie: {cookie}\nDETAIL: row-secret")
    address = "https://h/p?q=arg-secret"
    logging.getLogger("api.x").error(
        "failed %s", address, exc_info=error, extra={"headers": "extra-secret", "password": "pw-secret"}
    )
    assert len(sent) == 1
    text = json.dumps(sent)
    # The source lines around the error are code and may hold these words; values must not.
    for value in sent[0]["exception"]["values"]:
        value.pop("stacktrace")
    text = json.dumps(sent)
    assert "secret" not in text
    assert sent[0]["tags"]["request_id"] == "request-0002"
    assert sent[0]["release"] == "r-1"
    assert sent[0]["environment"] == "production"


def test_local_variables_do_not_leave(sent: list[dict[str, Any]]) -> None:
    def fail_holding(text: str) -> None:
        raise RuntimeError(len(text))

    with pytest.raises(RuntimeError) as caught:
        fail_holding("-".join(("local", "secret")))
    logging.getLogger("api.x").error("failed", exc_info=caught.value)
    frames = [frame for value in sent[0]["exception"]["values"] for frame in value["stacktrace"]["frames"]]
    assert frames
    assert not [frame for frame in frames if frame.get("vars")]


def test_without_a_dsn_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(sentry_sdk, "init", lambda **options: started.append(options))
    start_sentry(make_settings())
    assert not started


def test_scrubbing_keeps_the_first_line_without_what_was_sent() -> None:
    text = scrub("duplicate key value violates unique constraint\nDETAIL: Key (email)=(a@example.org)")
    assert text == "duplicate key value violates unique constraint"
