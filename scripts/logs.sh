#!/usr/bin/env bash
# usage: scripts/logs.sh [--help]    print the logs of one service, of one request, or of all services
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack logs "$@"
