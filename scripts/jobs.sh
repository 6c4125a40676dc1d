#!/usr/bin/env bash
# usage: scripts/jobs.sh [--help]    the jobs that failed for good: list, retry, discard
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack jobs "$@"
