"""Builds the application. It opens no connection: the lifespan does, after the fork."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from api.configuring.settings import Settings
from api.exports.routes import router as exports_router
from api.health.routes import router as health_router
from api.health.service import Readiness
from api.items.routes import router as items_router
from api.items.service import SUMMARY_SECONDS
from api.migrating.revisions import code_migrations
from api.observing import metrics
from api.observing.sentry import flush_sentry, start_sentry
from api.ops.routes import router as ops_router
from api.ops.sessions import Sessions
from api.requests.errors import install_error_handlers
from api.requests.limits import Limits, rules
from api.requests.middleware import RequestMiddleware
from api.requests.openapi import ANYWHERE, DescribedAPI
from api.requests.tokens import Tokens
from api.storing.cache import Cache
from api.storing.database import Database
from api.storing.redis_client import GuardedRedis, create_redis
from api.users.passwords import Passwords
from api.users.refresh_tokens import RefreshTokens
from api.users.routes import router as users_router
from api.webhooks.routes import router as webhooks_router
from api.webhooks.targets import Rules

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Open what a process needs before it serves, and close it at the end."""
    settings: Settings = app.state.settings
    await app.state.database.start()
    start_sentry(settings)
    background = [
        asyncio.create_task(app.state.database.warm()),
        asyncio.create_task(metrics.watch_loop(settings)),
    ]
    started = {"migration_head": code_migrations().head, "token_keys": app.state.tokens.key_ids}
    logger.info("api started", extra={"action": "api_started", **started})
    yield
    for task in background:
        task.cancel()
    await app.state.database.close()
    await app.state.redis.aclose()
    logger.info("api stopped", extra={"action": "api_stopped"})
    flush_sentry()


def create_app(settings: Settings) -> FastAPI:
    """Return the application with its state, middleware and routes."""
    app = DescribedAPI(
        title="Slipway",
        version=settings.release,
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        docs_url="/docs" if settings.docs_enabled else None,
        redoc_url=None,
        responses=ANYWHERE,
    )
    app.state.settings = settings
    app.state.database = Database(settings)
    app.state.redis = create_redis(settings)
    redis = GuardedRedis(app.state.redis)
    app.state.limits = Limits(redis, rules(settings))
    app.state.item_summaries = Cache(redis, "item_summaries", SUMMARY_SECONDS)
    app.state.tokens = Tokens(settings)
    app.state.refresh_tokens = RefreshTokens(settings)
    app.state.passwords = Passwords()
    app.state.sessions = Sessions(redis, settings)
    app.state.webhook_rules = Rules.of(settings)
    app.state.readiness = Readiness.of(app.state.database, app.state.redis)
    install_error_handlers(app)
    if settings.cors_origins:
        _allow_origins(app, settings)
    app.add_middleware(RequestMiddleware, settings=settings)
    app.include_router(health_router)
    for router in (users_router, items_router, exports_router, webhooks_router):
        app.include_router(router, prefix="/v1")
    if settings.ops_password:  # without a password there is no console: its addresses answer 404
        app.include_router(ops_router)
    return app


class CORSOutsideOfTheConsole(CORSMiddleware):
    """Adds no CORS headers under /ops: they would let another site use the session cookie."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/ops/"):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _allow_origins(app: FastAPI, settings: Settings) -> None:
    """Let pages of the allowed origins call this API.

    Answers that nginx or RequestMiddleware makes have no CORS header, so the page cannot read them.
    """
    app.add_middleware(
        CORSOutsideOfTheConsole,
        allow_origins=settings.cors_origins,
        allow_credentials=settings.cors_credentials,
        # Only the methods that a route has: no test would cover another.
        allow_methods=("GET", "POST", "PUT", "DELETE"),
        allow_headers=(
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "If-Match",
            "If-None-Match",
        ),
        expose_headers=(
            "ETag",
            "Idempotency-Replayed",
            "Retry-After",
            "RateLimit",
            "RateLimit-Policy",
            "X-Request-ID",
        ),
        max_age=600,  # seconds a browser keeps a preflight; Chromium allows at most two hours
    )
