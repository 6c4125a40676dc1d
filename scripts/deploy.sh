#!/usr/bin/env bash
# usage: scripts/deploy.sh [--help]    a release from this checkout, or from an image, made live
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack deploy "$@"
