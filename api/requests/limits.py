"""Rate limits: one table of rules, counted in Redis for all processes of both slots, in one round trip a request.

The algorithm is GCRA. A rule has a quota of requests that may come at once, and gets it back evenly over its seconds.
Answers tell in the fields of the IETF's draft (draft-ietf-httpapi-ratelimit-headers-10): `RateLimit-Policy` is what a
rule allows, `q` requests in `w` seconds; `RateLimit` is where the client stands, `r` left now, all of them in `t`
seconds. The draft is chosen over the older X-RateLimit-*, because it can tell of two rules at once and its seconds are
durations, so that a client's clock does not matter.

Without a rule, on purpose: GET of one item, of the user or of an export, each one row by its key. Redis would take a
third of their throughput (measured: 1,165 reads/s of one process without, 800 with), and nginx's fence bounds them per
address (RATE_LIMIT_PER_SECOND). Nor has logout one: whoever fears for his login must be able to end it.
"""

import hashlib
import ipaddress
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, TypeAlias

from fastapi import Depends, Request
from prometheus_client import Counter
from starlette.types import Scope

from api.configuring.settings import Settings
from api.requests.dependencies import UserId
from api.requests.errors import ApiError
from api.storing.redis_client import GuardedRedis, RedisAway

DECISIONS = Counter(
    "slipway_rate_limit_decisions_total",
    "Requests by rule: allowed or limited by Redis' count, by this process' own count, or open because Redis is away.",
    ("rule", "outcome"),
)
HEADERS_KEY = (
    "slipway.rate_limit_headers"  # in the ASGI scope, for RequestMiddleware: errors carry them, too
)
MICROSECONDS = 1_000_000
LOCAL_KEYS = (
    10_000  # chosen: about 2 MB; one address alone gets LOGIN_ADDRESS's quota of them in a minute
)


class RuleName(StrEnum):
    USER = "user"
    LOGIN = "login"
    LOGIN_ADDRESS = "login-address"
    REFRESH = "refresh"
    OPS_LOGIN = "ops-login"
    REGISTRATION = "registration"
    EXPORT = "export"


class Away(StrEnum):
    """What a rule does while Redis is away."""

    OPEN = "open"  # everything passes
    LOCAL = "local"  # each process counts by itself: at most the quota times the number of processes passes


@dataclass(frozen=True)
class Rule:
    quota: int
    seconds: int
    away: Away

    @property
    def interval(self) -> int:
        """Return the microseconds in which one request of the quota comes back."""
        return max(1, self.seconds * MICROSECONDS // self.quota)


def rules(settings: Settings) -> dict[RuleName, Rule]:
    """Return the table: requests at once, seconds until all of them are back, and what holds without Redis."""
    per_second, per_minute = settings.user_limit_per_second, settings.login_limit_per_minute
    return {
        # One user's writes and lists. Open: nginx's fence per address still stands, and an API that refuses its users
        # because a cache is away is the worse failure.
        RuleName.USER: Rule(2 * per_second, 2, Away.OPEN),
        # One account from one address, and all accounts from one address, which may be an office's.
        # Local: open would let him guess without end who can bring Redis down; closed would lock everybody out.
        RuleName.LOGIN: Rule(per_minute, 60, Away.LOCAL),
        RuleName.LOGIN_ADDRESS: Rule(3 * per_minute, 60, Away.LOCAL),
        # Nobody guesses a refresh token, so that this only bounds the work that one address makes for Postgres. An
        # office's 900 users, who refresh once in 15 minutes each, stay below.
        RuleName.REFRESH: Rule(6 * per_minute, 60, Away.LOCAL),
        # The console's password from one address. Not from all together: anybody could lock the operator out.
        RuleName.OPS_LOGIN: Rule(per_minute, 60, Away.LOCAL),
        # New accounts from one address: each costs a hash and a row for ever.
        RuleName.REGISTRATION: Rule(settings.registration_limit_per_hour, 3600, Away.LOCAL),
        # One user's exports: each keeps the worker busy for seconds and fills the database for a day.
        RuleName.EXPORT: Rule(settings.export_limit_per_hour, 3600, Away.LOCAL),
    }


# A key holds the microsecond at which the whole quota is there again. Time is the server's, so that processes need not
# agree on it. One in the far future, after that clock was set back or a quota lowered, counts as a quota used up.
GCRA = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local whole, wait = {}, 0
for i, key in ipairs(KEYS) do
    local interval, quota = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local at = math.max(tonumber(redis.call('GET', key) or 0), now)
    whole[i] = math.min(at, now + interval * quota)
    wait = math.max(wait, whole[i] + interval - interval * quota - now)
end
local answer = {wait}
for i, key in ipairs(KEYS) do
    local interval, quota = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    if wait == 0 then
        whole[i] = whole[i] + interval
        redis.call('SET', key, whole[i], 'PX', math.ceil((whole[i] - now) / 1000))
    end
    answer[2 * i] = math.floor((interval * quota - (whole[i] - now)) / interval)
    answer[2 * i + 1] = whole[i] - now
end
return answer
"""


class Asked(NamedTuple):
    """A rule, and whom it is counted for. A request counts by all the rules that it is checked against, or by none."""

    name: RuleName
    whose: str

    @property
    def key(self) -> str:
        # A digest: neither addresses nor accounts stand in Redis, and a key is short whatever a client sends.
        return (
            f"limit:{self.name}:{hashlib.blake2b(self.whose.encode(), digest_size=16).hexdigest()}"
        )


Counted: TypeAlias = Sequence[tuple[Asked, Rule]]


class LocalCounts:
    """The same algorithm in this process alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._whole_at: dict[str, int] = {}

    def take(self, counted: Counted) -> list[int]:
        """Return as the script does: microseconds to wait, then for each rule what is left and until it is whole."""
        now = int(self._clock() * MICROSECONDS)
        whole = [max(self._whole_at.get(one.key, 0), now) for one, _ in counted]
        waits = [
            at - rule.interval * (rule.quota - 1) - now
            for at, (_, rule) in zip(whole, counted, strict=True)
        ]
        answer = [max(0, *waits)]
        for at, (one, rule) in zip(whole, counted, strict=True):
            taken = at if answer[0] else at + rule.interval
            if not answer[0]:
                self._keep(one.key, taken)
            answer += [(rule.interval * rule.quota - (taken - now)) // rule.interval, taken - now]
        return answer

    def _keep(self, key: str, whole_at: int) -> None:
        self._whole_at.pop(key, None)
        self._whole_at[key] = whole_at
        if len(self._whole_at) > LOCAL_KEYS:
            del self._whole_at[next(iter(self._whole_at))]  # whoever asked longest ago


class Limits:
    def __init__(self, redis: GuardedRedis, table: Mapping[RuleName, Rule]) -> None:
        self._redis = redis
        self._table = table
        # Called by its digest; a Redis that does not have it, after a restart or a flush, is sent it once more.
        self._script = redis.client.register_script(GCRA)
        self._local = LocalCounts()

    async def check(self, scope: Scope, *asked: Asked) -> None:
        """Count a request, and leave the header fields of its answer in the scope.

        Raises:
            ApiError: 429 with Retry-After, the seconds after which the same request passes.
        """
        counted, answer, where = await self._count([(one, self._table[one.name]) for one in asked])
        wait_seconds = seconds(answer[0]) if counted else 0
        for one, _ in counted:
            DECISIONS.labels(
                one.name.value, ("limited" if wait_seconds else "allowed") + where
            ).inc()
        scope[HEADERS_KEY] = header_fields(counted, answer)
        if wait_seconds:
            raise ApiError(
                429,
                "too_many_requests",
                f"Too many requests; try again in {wait_seconds} s.",
                {"retry_after_seconds": wait_seconds},
                headers={"Retry-After": str(wait_seconds)},
            )

    async def _count(self, asked: Counted) -> tuple[Counted, list[int], str]:
        """Return the rules that were counted, the counts, and what tells a count without Redis from one with it."""
        try:
            return asked, await self._redis.call("limits", lambda: self._ask(asked)), ""
        except RedisAway:
            local = [(one, rule) for one, rule in asked if rule.away is Away.LOCAL]
            for one, rule in asked:
                if rule.away is Away.OPEN:
                    DECISIONS.labels(one.name.value, "open").inc()
            return local, self._local.take(local) if local else [], "_locally"

    async def _ask(self, asked: Counted) -> list[int]:
        numbers = [number for _, rule in asked for number in (rule.interval, rule.quota)]
        answer: list[int] = await self._script(keys=[one.key for one, _ in asked], args=numbers)
        return answer


def seconds(microseconds: int) -> int:
    return math.ceil(microseconds / MICROSECONDS)


def header_fields(counted: Counted, answer: Sequence[int]) -> list[tuple[bytes, bytes]]:
    """Return RateLimit-Policy and RateLimit; nothing for an answer that nothing was counted for."""
    if not counted:
        return []
    policies = (f'"{one.name}";q={rule.quota};w={rule.seconds}' for one, rule in counted)
    left = (
        f'"{one.name}";r={answer[2 * i + 1]};t={seconds(answer[2 * i + 2])}'
        for i, (one, _) in enumerate(counted)
    )
    return [
        (b"ratelimit-policy", ", ".join(policies).encode()),
        (b"ratelimit", ", ".join(left).encode()),
    ]


def address_of(request: Request) -> str:
    """Return the client's address as nginx saw it; of IPv6 the network, as every customer has 2**64 addresses."""
    host = request.client.host if request.client else ""
    if ":" in host:
        return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))
    return host


def get_limits(request: Request) -> Limits:
    limits: Limits = request.app.state.limits
    return limits


def per_user(*names: RuleName) -> Any:
    """Return a dependency for a route's decorator: it counts the request for the user of its token."""

    async def count(request: Request, user_id: UserId) -> None:
        await get_limits(request).check(
            request.scope, *(Asked(name, str(user_id)) for name in names)
        )

    return Depends(count)


LimitsDep = Annotated[Limits, Depends(get_limits)]
