"""The ladder of time limits, in seconds, stated once; each must stay below the next one named in its comment.

`tests/contracts/test_timeouts.py` compares it with nginx and the compose files.
"""

POOL_SECONDS = (
    1.0  # a request that gets no database connection, free or new, fails fast instead of queueing
)
PEER_SECONDS = (
    1.0  # what was sent to the database and is not acknowledged by its host for so long is lost
)
CONNECT_SECONDS = 2.0  # connections that are not the pool's; libpq takes no less
LOCK_SECONDS = 2.0  # below STATEMENT_SECONDS: a blocked row lock is reported as a lock
STATEMENT_SECONDS = 10.0  # below REQUEST_SECONDS: the database gives up before the request does
# A request that nginx sent so long ago is refused when a process gets to it: one that is short of CPU then answers what
# it can do in time and gets through the rest fast, instead of doing all of it too late. Below REQUEST_SECONDS.
QUEUE_SECONDS = 3.0
REQUEST_SECONDS = (
    15.0  # until the response starts; below nginx's proxy_read_timeout (20) and GRACEFUL_SECONDS
)
GRACEFUL_SECONDS = 30.0  # Uvicorn: requests in flight at shutdown; below GUNICORN_GRACEFUL_SECONDS
GUNICORN_GRACEFUL_SECONDS = (
    35  # Gunicorn: kills the worker after it; below compose stop_grace_period (40 s)
)
GUNICORN_TIMEOUT_SECONDS = 30  # a worker whose event loop gives no sign for so long is killed
UPSTREAM_IDLE_SECONDS = (
    2.0  # nginx lets go of an idle upstream connection after 1 s; a draining worker waits it out
)
KEEPALIVE_SECONDS = 75  # Gunicorn's idle limit; above UPSTREAM_IDLE_SECONDS
READY_SECONDS = 1.0  # each readiness check, all run together
READY_CACHE_SECONDS = 1.0  # an answer is reused this long, so that probes cost nothing under load
WORKER_DRAIN_SECONDS = (
    25.0  # a job in flight at the first signal; below the worker's stop_grace_period (30 s)
)
