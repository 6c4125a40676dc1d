"""Rate limits: one table of rules, counted in Redis for all processes of both slots.

A request takes one round trip. The algorithm is GCRA: a rule has a quota of requests that may come
at once, and the quota refills evenly over the rule's seconds.

Answers have the headers of the IETF's draft (draft-ietf-httpapi-ratelimit-headers-10).
`RateLimit-Policy` is the rule: `q` requests in `w` seconds. `RateLimit` is the client's state: `r`
requests are left, and the whole quota is available again in `t` seconds. The draft can describe two
rules at once, and its seconds are durations, so a client's clock does not matter. The older headers
X-RateLimit-* can do neither.

These requests have no rule, on purpose: GET of an item, of the user or of an export, each of which
reads a row by its key. Redis would cost a third of their throughput (measured: 1,165 reads/s of a
process without a rule, 800 with one), and nginx limits them per address (RATE_LIMIT_PER_SECOND).
Logout has no rule either: a user who fears that a login was stolen must be able to end it.
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
    "Requests by rule: allowed or limited by the count in Redis, by the count of this process, or"
    " open (not limited) because Redis is away.",
    ("rule", "outcome"),
)
# In the ASGI scope; RequestMiddleware adds the headers, to errors as well.
HEADERS_KEY = "slipway.rate_limit_headers"
MICROSECONDS = 1_000_000
# Chosen: about 2 MB. A single address can add LOGIN_ADDRESS's quota of keys in a minute.
LOCAL_KEYS = 10_000


class RuleName(StrEnum):
    """The rules, as the headers and metrics name them."""

    USER = "user"
    LOGIN = "login"
    LOGIN_ADDRESS = "login-address"
    REFRESH = "refresh"
    OPS_LOGIN = "ops-login"
    REGISTRATION = "registration"
    EXPORT = "export"


class Away(StrEnum):
    """The behaviour of a rule while Redis is away."""

    OPEN = "open"  # the rule lets every request pass
    # Each process counts by itself: at most the quota times the number of processes passes.
    LOCAL = "local"


@dataclass(frozen=True)
class Rule:
    """A quota of requests that may come at once; it refills evenly over some seconds."""

    quota: int
    seconds: int
    away: Away

    @property
    def interval(self) -> int:
        """Return the microseconds in which one request refills."""
        return max(1, self.seconds * MICROSECONDS // self.quota)


def rules(settings: Settings) -> dict[RuleName, Rule]:
    """Return the table: the quota, the seconds of a full refill, and what happens without Redis."""
    per_second, per_minute = settings.user_limit_per_second, settings.login_limit_per_minute
    return {
        # A user's writes and lists. Open: nginx's limit per address remains, and to refuse all
        # users because Redis is away would be worse.
        RuleName.USER: Rule(2 * per_second, 2, Away.OPEN),
        # One quota for each account and address, and a larger one for the address, which an office
        # may share. Local: with OPEN, anyone who can crash Redis could guess passwords without
        # limit; a refusal would lock everybody out.
        RuleName.LOGIN: Rule(per_minute, 60, Away.LOCAL),
        RuleName.LOGIN_ADDRESS: Rule(3 * per_minute, 60, Away.LOCAL),
        # A refresh token cannot be guessed, so this rule only limits the load of an address on
        # Postgres. An office of 900 users who refresh every 15 minutes stays below the limit.
        RuleName.REFRESH: Rule(6 * per_minute, 60, Away.LOCAL),
        # Attempts at the console's password, by address. A count over all addresses would let
        # anybody lock the operator out.
        RuleName.OPS_LOGIN: Rule(per_minute, 60, Away.LOCAL),
        # New accounts from an address: each costs a password hash, and a row that is never deleted.
        RuleName.REGISTRATION: Rule(settings.registration_limit_per_hour, 3600, Away.LOCAL),
        # A user's exports: each occupies the worker for seconds and the database for a day.
        RuleName.EXPORT: Rule(settings.export_limit_per_hour, 3600, Away.LOCAL),
    }


# A key holds the microsecond at which the whole quota is available again. The time is the Redis
# server's, so the clocks of the processes do not matter. If that clock is set back or a quota is
# lowered, the time may lie in the far future; it then counts as a quota that is used up.
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


class Claim(NamedTuple):
    """A rule and the subject that it counts for, such as a user or an address.

    A request counts against all of its claims, or against none.
    """

    name: RuleName
    subject: str

    @property
    def key(self) -> str:
        """Return the key in Redis: a digest, so that it holds no address and no account."""
        digest = hashlib.blake2b(self.subject.encode(), digest_size=16)
        return f"limit:{self.name}:{digest.hexdigest()}"


Counted: TypeAlias = Sequence[tuple[Claim, Rule]]


class LocalCounts:
    """The same algorithm in this process's memory, for the time that Redis is away."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._whole_at: dict[str, int] = {}

    def take(self, counted: Counted) -> list[int]:
        """Count a request, as the script does.

        Return the microseconds to wait, then for each rule the requests left and the microseconds
        until its quota is whole again.
        """
        now = int(self._clock() * MICROSECONDS)
        whole = [max(self._whole_at.get(claim.key, 0), now) for claim, _ in counted]
        waits = [
            at - rule.interval * (rule.quota - 1) - now
            for at, (_, rule) in zip(whole, counted, strict=True)
        ]
        answer = [max(0, *waits)]
        for at, (claim, rule) in zip(whole, counted, strict=True):
            taken = at if answer[0] else at + rule.interval
            if not answer[0]:
                self._keep(claim.key, taken)
            answer += [(rule.interval * rule.quota - (taken - now)) // rule.interval, taken - now]
        return answer

    def _keep(self, key: str, whole_at: int) -> None:
        self._whole_at.pop(key, None)
        self._whole_at[key] = whole_at
        if len(self._whole_at) > LOCAL_KEYS:
            del self._whole_at[next(iter(self._whole_at))]  # the key that was counted longest ago


class Limits:
    """Checks requests against the table of rules."""

    def __init__(self, redis: GuardedRedis, table: Mapping[RuleName, Rule]) -> None:
        self._redis = redis
        self._table = table
        # The client calls the script by its digest, and sends it again after Redis restarted.
        self._script = redis.client.register_script(GCRA)
        self._local = LocalCounts()

    async def check(self, scope: Scope, *claims: Claim) -> None:
        """Count a request, and store the header fields of its answer in the scope.

        Raises:
            ApiError: 429 with Retry-After, the seconds to wait before retrying.
        """
        rules_of_claims = [(claim, self._table[claim.name]) for claim in claims]
        counted, answer, suffix = await self._count(rules_of_claims)
        wait_seconds = seconds(answer[0]) if counted else 0
        outcome = ("limited" if wait_seconds else "allowed") + suffix
        for claim, _ in counted:
            DECISIONS.labels(claim.name.value, outcome).inc()
        scope[HEADERS_KEY] = header_fields(counted, answer)
        if wait_seconds:
            raise ApiError(
                429,
                "too_many_requests",
                f"Too many requests; retry in {wait_seconds} s.",
                {"retry_after_seconds": wait_seconds},
                headers={"Retry-After": str(wait_seconds)},
            )

    async def _count(self, claims: Counted) -> tuple[Counted, list[int], str]:
        """Return the claims that were counted, the counts, and the suffix of the outcome's name."""
        try:
            return claims, await self._redis.call("limits", lambda: self._ask(claims)), ""
        except RedisAway:
            local = [(claim, rule) for claim, rule in claims if rule.away is Away.LOCAL]
            for claim, rule in claims:
                if rule.away is Away.OPEN:
                    DECISIONS.labels(claim.name.value, "open").inc()
            return local, self._local.take(local) if local else [], "_locally"

    async def _ask(self, claims: Counted) -> list[int]:
        numbers = [number for _, rule in claims for number in (rule.interval, rule.quota)]
        keys = [claim.key for claim, _ in claims]
        answer: list[int] = await self._script(keys=keys, args=numbers)
        return answer


def seconds(microseconds: int) -> int:
    """Return microseconds as whole seconds, rounded up."""
    return math.ceil(microseconds / MICROSECONDS)


def header_fields(counted: Counted, answer: Sequence[int]) -> list[tuple[bytes, bytes]]:
    """Return RateLimit-Policy and RateLimit, or nothing if no rule was counted."""
    if not counted:
        return []
    policies = (f'"{claim.name}";q={rule.quota};w={rule.seconds}' for claim, rule in counted)
    remaining = (
        f'"{claim.name}";r={answer[2 * i + 1]};t={seconds(answer[2 * i + 2])}'
        for i, (claim, _) in enumerate(counted)
    )
    return [
        (b"ratelimit-policy", ", ".join(policies).encode()),
        (b"ratelimit", ", ".join(remaining).encode()),
    ]


def address_of(request: Request) -> str:
    """Return the client's address from nginx; for IPv6 its /64, the network of one customer."""
    host = request.client.host if request.client else ""
    if ":" in host:
        return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))
    return host


def get_limits(request: Request) -> Limits:
    """Return the limits of this process."""
    limits: Limits = request.app.state.limits
    return limits


def per_user(*names: RuleName) -> Any:
    """Return a dependency for a route's decorator, which counts each request for its user."""

    async def count(request: Request, user_id: UserId) -> None:
        claims = (Claim(name, str(user_id)) for name in names)
        await get_limits(request).check(request.scope, *claims)

    return Depends(count)


LimitsDep = Annotated[Limits, Depends(get_limits)]
