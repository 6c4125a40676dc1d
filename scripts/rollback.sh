#!/usr/bin/env bash
# usage: scripts/rollback.sh [--help]    make the previous good release, or the named one, live again
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack rollback "$@"
