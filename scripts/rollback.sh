#!/usr/bin/env bash
# usage: scripts/rollback.sh [--help]    make the previous good release, or the named one, live again
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # a Python that lacks its own library starts no script
PYTHONPATH=scripts exec python3 -m stack rollback "$@"
