#!/usr/bin/env bash
# usage: scripts/check-config.sh [--help]    print what is wrong or unwise in .env and secrets/; changes nothing
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack check-config "$@"
