#!/usr/bin/env bash
# usage: scripts/drill.sh [--help]    restore the newest backup into a scratch directory and check it
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack drill "$@"
