"""Webhooks, end to end: signed, in order, at least once, only to allowed addresses."""

import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.conftest import Figure
from tests.receiver import Received, Receiver
from tests.stack.harness import Stack, wait_until
from tests.stack.settings import slot_settings

pytestmark = pytest.mark.drill
ALL = ["item.created", "item.updated", "item.deleted"]


@pytest.fixture(scope="module")
def receiver(stack: Stack) -> Iterator[Receiver]:
    """A receiver whose address the stack's API and worker are configured to allow."""
    network = json.loads(
        stack.run("docker", "network", "inspect", f"{stack.project}_egress").stdout
    )[0]
    gateway = network["IPAM"]["Config"][0]["Gateway"]
    made = Receiver(gateway)
    allowed = {
        "ENVIRONMENT": "development",  # allows http
        "WEBHOOK_ALLOWED_NETWORKS": f"{gateway}/32",
        "WEBHOOK_ALLOWED_PORTS": f"443,{made.port}",
    }
    services = [
        "up",
        "--detach",
        "--no-deps",
        "--wait",
        "--wait-timeout",
        "60",
        "api-blue",
        "worker-blue",
    ]
    try:
        with slot_settings(stack, "blue", **allowed):
            stack.compose(*services)
            yield made
    finally:
        made.close()
        stack.compose(*services)


@dataclass
class User:
    """A new user with one webhook at the receiver."""

    id: str
    client: httpx2.Client
    path: str
    secret: str
    url: str

    def create(self, name: str) -> str:
        made = self.client.post("/v1/items", json={"name": name})
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def rename(self, item: str, name: str) -> None:
        assert self.client.put(f"/v1/items/{item}", json={"name": name}).status_code == 200

    def deliveries(self, status: str = "") -> list[dict[str, Any]]:
        """Return the log, oldest first."""
        chosen = f"&status={status}" if status else ""
        answer = self.client.get(f"{self.path}/deliveries?limit=100{chosen}")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["deliveries"]
        return found[::-1]


@pytest.fixture
def user(stack: Stack, receiver: Receiver) -> Iterator[User]:
    who = {"email": f"{uuid.uuid4().hex}@example.com", "password": "a long enough password"}
    receiver.answer = lambda _: 204
    with stack.client(timeout=30) as client:
        owner = client.post("/v1/users", json=who).json()["id"]
        client.headers["Authorization"] = (
            f"Bearer {client.post('/v1/users/login', json=who).json()['access_token']}"
        )
        url = f"{receiver.url}/{owner}"
        made = client.post("/v1/webhooks", json={"url": url, "event_types": ALL})
        assert made.status_code == 201, made.text
        yield User(owner, client, f"/v1/webhooks/{made.json()['id']}", made.json()["secret"], url)
        assert client.delete(f"/v1/webhooks/{made.json()['id']}").status_code in {204, 404}


def test_the_changes_of_an_item_arrive_signed_and_in_order(
    user: User, receiver: Receiver, figure: Figure
) -> None:
    item = user.create("rope")
    seconds = wait_until(
        lambda: receiver.delivered(user.id), 60, "the first event arrives", every=0.01
    )
    figure(f"webhook: {seconds * 1000:.0f} ms from the answer of the change to its event")
    user.rename(item, "line")
    assert user.client.delete(f"/v1/items/{item}").status_code == 204
    wait_until(lambda: len(receiver.delivered(user.id)) == 3, 60, "all events arrive")
    got = receiver.delivered(user.id)
    assert [one.event["type"] for one in got] == ALL
    assert [one.event["data"]["name"] for one in got] == ["rope", "line", "line"]
    assert {one.item for one in got} == {item}
    assert [one.event["timestamp"] for one in got] == sorted(one.event["timestamp"] for one in got)
    assert all(one.is_signed_by(user.secret) for one in got)
    assert not any(one.is_signed_by("whsec_" + "A" * 43 + "=") for one in got)
    wait_until(lambda: len(user.deliveries("delivered")) == 3, 60, "the log shows it")
    log = user.deliveries()
    assert [one["id"] for one in log] == [one.id for one in got]
    assert {(one["attempts"], one["last_status_code"], one["next_attempt_at"]) for one in log} == {
        (1, 204, None)
    }


def test_a_secret_is_rotated_without_an_event_that_either_side_refuses(
    user: User, receiver: Receiver
) -> None:
    new = user.client.post(f"{user.path}/secret").json()
    assert new["previous_secret_until"]
    user.create("rope")
    wait_until(lambda: receiver.delivered(user.id), 60, "the event arrives")
    (got,) = receiver.delivered(user.id)
    assert got.is_signed_by(user.secret)
    assert got.is_signed_by(new["secret"])
    assert "secret" not in user.client.get(user.path).json()


def test_no_event_is_written_that_nobody_asked_for(stack: Stack, user: User) -> None:
    chosen = {"url": user.url, "event_types": ["item.deleted"]}
    assert user.client.put(user.path, json=chosen).status_code == 200
    item = user.create("rope")
    assert user.client.put(f"/v1/items/{uuid.uuid4()}", json={"name": "x"}).status_code == 404
    assert user.deliveries() == []
    assert user.client.put(user.path, json={**chosen, "is_enabled": False}).status_code == 200
    assert user.client.delete(f"/v1/items/{item}").status_code == 204
    assert user.deliveries() == []


def test_an_event_its_item_and_its_job_are_of_one_transaction(stack: Stack, user: User) -> None:
    stack.compose("stop", "worker-blue")
    try:
        item = user.create("rope")
        ids = [
            f"select xmin from items where id = '{item}'",
            f"select xmin from webhook_deliveries where item_id = '{item}'",
        ]
        newest = (
            "select xmin from procrastinate_jobs where task_name = 'webhooks.deliver' order by "
            "id desc limit 1"
        )
        assert len({stack.sql(question) for question in [*ids, newest]}) == 1
    finally:
        stack.compose("start", "worker-blue")
    wait_until(lambda: user.deliveries("delivered"), 60, "the event is delivered")


@pytest.mark.counts_losses
def test_order_holds_under_errors_and_a_killed_worker(
    stack: Stack, user: User, receiver: Receiver, figure: Figure
) -> None:
    refused: set[str] = set()
    held = threading.Event()
    free = threading.Event()

    def answer(one: Received) -> int:
        number = int(one.event["data"]["name"])
        if number == 2 and one.id not in refused:
            refused.add(one.id)
            return 500
        if number == 1 and not free.is_set():
            held.set()
            free.wait(60)  # the request is open while its worker is killed
        return 200

    receiver.answer = answer
    items = [user.create("0") for _ in range(3)]
    for number in range(1, 5):
        for item in items:
            user.rename(item, str(number))
    assert held.wait(60)
    pid = stack.host_pid("worker-blue")
    os.kill(pid, signal.SIGKILL)
    free.set()
    wait_until(lambda: stack.host_pid("worker-blue") not in {0, pid}, 60, "the worker runs again")
    seconds = wait_until(
        lambda: len(user.deliveries("delivered")) == 15, 180, "every event is delivered"
    )
    figure(
        f"webhooks: 15 events, 3 refused once, worker killed: all delivered {seconds:.1f} "
        "s after it was back"
    )
    for item in items:
        names = [int(one.event["data"]["name"]) for one in receiver.received if one.item == item]
        assert names == sorted(names), "a later event went before an earlier one was delivered"
        assert set(names) == {0, 1, 2, 3, 4}
        assert names.count(2) >= 2, "the receiver refused this event once, so that it is sent twice"
    repeated = sum(one.item in items for one in receiver.received) - 15 - len(refused)
    assert repeated > 0, "the kill interrupted no attempt"


def test_what_was_set_aside_lets_the_next_pass_and_is_replayed(
    stack: Stack, user: User, receiver: Receiver
) -> None:
    receiver.answer = lambda one: 503 if one.event["data"]["name"] == "bad" else 200
    item = user.create("bad")
    wait_until(
        lambda: user.deliveries() and user.deliveries()[0]["last_status_code"] == 503,
        60,
        "it is refused",
    )
    user.rename(item, "good")
    assert (
        user.client.post(f"{user.path}/deliveries/{user.deliveries()[0]['id']}/replay").status_code
        == 409
    )
    assert receiver.delivered(user.id) == [], "the second event waits for the first"
    stack.sql(
        f"update webhook_deliveries set attempts = 12 where item_id = '{item}' and "
        "last_status_code = 503"
    )
    wait_until(lambda: user.deliveries("failed"), 60, "it is set aside after its last attempt")
    wait_until(lambda: receiver.delivered(user.id), 60, "the next event is delivered")
    (failed,) = user.deliveries("failed")
    assert (failed["attempts"], failed["last_error"], failed["next_attempt_at"]) == (
        13,
        "status 503",
        None,
    )

    receiver.answer = lambda _: 200
    later = {"since": "2999-01-01T00:00:00Z"}
    assert user.client.post(f"{user.path}/replay", json=later).json() == {"replayed": 0}
    replayed = user.client.post(f"{user.path}/replay", json={"since": failed["created_at"]})
    assert (replayed.status_code, replayed.json()) == (202, {"replayed": 1})
    wait_until(lambda: len(receiver.delivered(user.id)) == 2, 60, "it arrives")
    wait_until(lambda: len(user.deliveries("delivered")) == 2, 60, "the log shows it")
    again = user.client.post(f"{user.path}/deliveries/{failed['id']}/replay")
    assert (again.status_code, again.json()["status"]) == (202, "pending")
    wait_until(
        lambda: len(receiver.delivered(user.id)) == 3,
        60,
        "a delivered event is also sent again",
    )
    assert [one.id for one in receiver.delivered(user.id)][1:] == [failed["id"]] * 2, (
        "a replayed event has a new id"
    )


def test_410_disables_and_a_redirect_is_not_followed(user: User, receiver: Receiver) -> None:
    receiver.answer = lambda one: 307 if one.event["data"]["name"] == "redirect" else 410
    user.create("redirect")
    wait_until(lambda: user.deliveries()[0]["last_status_code"] == 307, 60, "it is refused")
    assert user.deliveries()[0]["status"] == "pending"
    user.create("gone")
    wait_until(
        lambda: not user.client.get(user.path).json()["is_enabled"], 60, "the webhook is disabled"
    )
    assert [one["status"] for one in user.deliveries()] == ["failed", "failed"], (
        "no event is pending"
    )
    assert not [one for one in receiver.received if one.headers[":path"] == "/redirected"]
    refused = user.client.post(f"{user.path}/replay", json={"since": "2020-01-01T00:00:00Z"})
    assert (refused.status_code, refused.json()["error"]) == (409, "webhook_disabled")


def test_a_dead_host_opens_its_circuit(stack: Stack, user: User, receiver: Receiver) -> None:
    dead = user.url.replace(str(receiver.port), "443")  # an allowed port on which nothing listens
    assert user.client.put(user.path, json={"url": dead, "event_types": ALL}).status_code == 200
    for _ in range(6):
        user.create("rope")
    wait_until(
        lambda: len([d for d in user.deliveries() if d["last_error"]]) == 6, 60, "each was tried"
    )
    wait_until(
        lambda: any("no attempts" in (d["last_error"] or "") for d in user.deliveries()),
        60,
        "circuit is open",
    )
    assert "circuit_opened" in stack.compose("logs", "--no-color", "--since", "10m", "worker-blue")


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "https://postgres/", "https://169.254.169.254/latest"]
)
def test_an_address_inside_is_refused_when_subscribing(user: User, url: str) -> None:
    answer = user.client.post("/v1/webhooks", json={"url": url, "event_types": ALL})
    assert (answer.status_code, answer.json()["error"]) == (422, "webhook_url_refused")
    assert answer.json()["details"] == [
        {"field": "body.url", "message": "the host has no public address"}
    ]


def test_a_name_that_came_to_lead_inside_is_refused_when_sending(stack: Stack, user: User) -> None:
    """The name's owner changes its address after the subscription."""
    inside = user.url.partition(":")[0] + "s://redis/"
    stack.sql(f"update webhook_subscriptions set url = '{inside}' where owner_id = '{user.id}'")
    user.create("rope")
    wait_until(lambda: user.deliveries()[0]["last_error"], 60, "it was tried")
    assert user.deliveries()[0]["last_error"] == "refused: the host has no public address"


def test_what_belongs_to_a_user_goes_with_the_user(stack: Stack, user: User) -> None:
    user.create("rope")
    wait_until(lambda: user.deliveries("delivered"), 60, "the event is delivered")
    stack.sql(f"delete from users where id = '{user.id}'")
    subscription = user.path.rpartition("/")[2]
    assert (
        stack.sql(
            f"select count(*) from webhook_deliveries where subscription_id = '{subscription}'"
        )
        == "0"
    )
