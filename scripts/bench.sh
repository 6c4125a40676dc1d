#!/usr/bin/env bash
# usage: scripts/bench.sh [--rounds N] [--seconds S] [--json FILE]    measure the whole path as a ratio to bare uvicorn
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
-h | --help)
	sed -n '2s/^# //p' "$0"
	exec sed -n '/^"""/,/"""$/{s/"""//;p}' tests/bench/__main__.py
	;;
esac
if ! command -v wrk >/dev/null; then
	printf '==> wrk\n    $ apt-get install --yes wrk\n'
	apt-get update --quiet=2
	DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends wrk >/dev/null
fi
exec ./scripts/test.sh bench "$@"
