#!/usr/bin/env bash
# usage: scripts/deploy.sh [--help]    make a release of this checkout, or an image, live
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack deploy "$@"
