#!/usr/bin/env bash
# usage: scripts/backup.sh [--help]    take a backup of the database now
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack backup "$@"
