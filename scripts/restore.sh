#!/usr/bin/env bash
# usage: scripts/restore.sh [--help]    restore the database to an earlier time, beside the present one or in its place
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack restore "$@"
