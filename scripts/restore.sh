#!/usr/bin/env bash
# usage: scripts/restore.sh [--help]    restore the database to an earlier time, beside the present one or in its place
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack restore "$@"
