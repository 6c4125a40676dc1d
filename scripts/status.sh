#!/usr/bin/env bash
# usage: scripts/status.sh [--help]    one screen: what is live and how it is
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack status "$@"
