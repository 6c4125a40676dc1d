#!/usr/bin/env bash
# usage: scripts/drill.sh [--help]    restore the newest backup into a scratch directory and check it
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack drill "$@"
