#!/usr/bin/env bash
# usage: scripts/rollback.sh [--help]    make the previous good release, or the named one, live again
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack rollback "$@"
