#!/usr/bin/env bash
# usage: scripts/logs.sh [--help]    print the logs of one service, of one request, or of all services
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack logs "$@"
