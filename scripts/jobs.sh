#!/usr/bin/env bash
# usage: scripts/jobs.sh [--help]    list, retry or discard the jobs that failed for good
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # a Python that lacks its own library starts no script
PYTHONPATH=scripts exec python3 -m stack jobs "$@"
