#!/usr/bin/env bash
# usage: scripts/up.sh [--apply SERVICE] [--refresh-bases] [--adopt] [--prepare] [--dry-run]    bring the whole stack up on this machine
set -Eeuo pipefail

# The stories are Python, which a bare machine may lack.
if ! command -v python3 >/dev/null; then
	if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
		printf 'error: python3 is not installed\nHINT: install python3, or run this as root on Debian or Ubuntu\n' >&2
		exit 1
	fi
	printf '==> python3\n    $ apt-get install --yes python3\n'
	apt-get update --quiet=2
	DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends python3 >/dev/null
fi
CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack up "$@"
