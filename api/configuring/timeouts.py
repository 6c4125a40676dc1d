"""Every time limit, in seconds, in one place; a comment names the limit that must be longer.

`tests/contracts/test_timeouts.py` compares them with nginx and the compose files.
"""

# A request waits this long for a database connection, free or new, and then fails.
POOL_SECONDS = 1.0
# A connection is lost when the database's host acknowledges nothing for this long.
PEER_SECONDS = 1.0
CONNECT_SECONDS = 2.0  # connections outside the pool; libpq accepts no less
LOCK_SECONDS = 2.0  # below STATEMENT_SECONDS, so that the error names the lock
STATEMENT_SECONDS = 10.0  # below REQUEST_SECONDS: the database gives up before the request does
# A process refuses a request that nginx sent longer ago than this. A process short of CPU then
# answers some requests in time, instead of answering all of them late. Below REQUEST_SECONDS.
QUEUE_SECONDS = 3.0
# Until the response starts. Below nginx's proxy_read_timeout (20 s) and GRACEFUL_SECONDS.
REQUEST_SECONDS = 15.0
# How long Uvicorn waits for requests in flight at shutdown. Below GUNICORN_GRACEFUL_SECONDS.
GRACEFUL_SECONDS = 30.0
# After this Gunicorn kills the worker process. Below stop_grace_period in compose.yaml (40 s).
GUNICORN_GRACEFUL_SECONDS = 35
GUNICORN_TIMEOUT_SECONDS = 30  # Gunicorn kills a process whose event loop is silent for this long
# A draining process waits this long for nginx to close an idle connection, which it does after 1 s.
UPSTREAM_IDLE_SECONDS = 2.0
KEEPALIVE_SECONDS = 75  # Gunicorn's idle limit; above UPSTREAM_IDLE_SECONDS
READY_SECONDS = 1.0  # each readiness check; all of them run at the same time
READY_CACHE_SECONDS = 1.0  # probes reuse an answer this long, so that they cost nothing under load
# How long a job may go on after the first signal. Below the worker's stop_grace_period (30 s).
WORKER_DRAIN_SECONDS = 25.0
