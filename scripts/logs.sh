#!/usr/bin/env bash
# usage: scripts/logs.sh [--help]    the logs of one service, of one request, or of all
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack logs "$@"
