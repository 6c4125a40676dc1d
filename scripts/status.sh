#!/usr/bin/env bash
# usage: scripts/status.sh [--help]    one screen: what is live and how it is
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # a Python that lacks its own library starts no script
PYTHONPATH=scripts exec python3 -m stack status "$@"
