#!/usr/bin/env bash
# usage: scripts/jobs.sh [--help]    list, retry or discard the jobs that failed for good
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack jobs "$@"
