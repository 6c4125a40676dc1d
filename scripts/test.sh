#!/usr/bin/env bash
# usage: scripts/test.sh [unit|stack|soak|audit] [pytest options]    all; no engine; with one; long load; package holes
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
-h | --help) exec sed -n '2s/^# //p' "$0" ;;
unit) shift && set -- pytest -m 'not docker and not stack and not drill and not soak' "$@" ;;
stack) shift && set -- pytest -m '(docker or stack or drill) and not soak' "$@" ;;
soak) shift && set -- pytest -m soak "$@" ;;
# Needs the network. --strict: what could not be looked up is a failure, never a pass.
audit) set -- pip_audit --strict --disable-pip --require-hashes -r requirements.lock ;;
bench) shift && set -- tests.bench "$@" ;; # scripts/bench.sh
*) set -- pytest -m 'not soak' "$@" ;;
esac

# The tests' own Python packages, in .venv; made again when the lock changes.
if ! cmp --silent requirements-dev.lock .venv/requirements-dev.lock; then
	printf '==> test environment in .venv\n'
	if ! python3 -c 'import ensurepip' 2>/dev/null; then
		apt-get update --quiet=2
		DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends python3-venv >/dev/null
	fi
	python3 -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		--only-binary :all: -r requirements-dev.lock
	cp requirements-dev.lock .venv/requirements-dev.lock
fi
printf '==> %s\n' "$1"
exec .venv/bin/python -m "$@"
