#!/usr/bin/env bash
# usage: scripts/status.sh [--help]    show on one screen what is live and its state
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # a Python that lacks its own library starts no script
PYTHONPATH=scripts exec python3 -m stack status "$@"
