#!/usr/bin/env bash
# usage: scripts/status.sh [--help]    show on one screen what is live and its state
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack status "$@"
