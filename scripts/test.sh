#!/usr/bin/env bash
# usage: scripts/test.sh [unit|stack] [pytest options]    every test; unit: those that need no engine; stack: the others
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
-h | --help)
	sed -n '2s/^# //p' "$0"
	exit 0
	;;
unit) selection=(-m 'not docker and not stack and not drill') && shift ;;
stack) selection=(-m 'docker or stack or drill') && shift ;;
*) selection=() ;;
esac

# The tests' own Python packages, in .venv; made again when the lock changes.
if ! cmp --silent requirements-dev.lock .venv/requirements-dev.lock; then
	printf '==> test environment in .venv\n'
	if ! python3 -c 'import ensurepip' 2>/dev/null; then
		printf '    $ apt-get install --yes python3-venv\n'
		apt-get update --quiet=2
		DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends python3-venv >/dev/null
	fi
	python3 -m venv --clear .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
		-r requirements-dev.lock
	cp requirements-dev.lock .venv/requirements-dev.lock
fi
printf '==> pytest\n'
exec .venv/bin/python -m pytest "${selection[@]}" "$@"
