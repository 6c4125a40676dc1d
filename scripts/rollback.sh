#!/usr/bin/env bash
# usage: scripts/rollback.sh [--help]    the release before, or the one that is named, made live again
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack rollback "$@"
