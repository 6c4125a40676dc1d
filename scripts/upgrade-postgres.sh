#!/usr/bin/env bash
# usage: scripts/upgrade-postgres.sh [--help]    bring the database to the next major version of Postgres
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack upgrade-postgres "$@"
