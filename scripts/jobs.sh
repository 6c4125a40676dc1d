#!/usr/bin/env bash
# usage: scripts/jobs.sh [--help]    list, retry or discard the jobs that failed for good
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack jobs "$@"
