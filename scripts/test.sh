#!/usr/bin/env bash
# usage: scripts/test.sh [PART] [TEST ...] [pytest options]    run tests; --help shows how to run one
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
-h | --help) exec python3 tests/run.py --help ;;
esac

# The tests' own Python packages, in .venv; installed again when the lock changes.
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
exec .venv/bin/python tests/run.py "$@"
