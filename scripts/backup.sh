#!/usr/bin/env bash
# usage: scripts/backup.sh [--help]    take a backup of the database now
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack backup "$@"
