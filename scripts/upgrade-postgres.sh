#!/usr/bin/env bash
# usage: scripts/upgrade-postgres.sh [--help]    bring the database to the next major version of Postgres
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack upgrade-postgres "$@"
