#!/usr/bin/env bash
# usage: scripts/deploy.sh [--help]    make a release of this checkout, or an image, live
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack deploy "$@"
