#!/usr/bin/env bash
# usage: scripts/check-config.sh [--help]    print what is wrong or unwise in .env and secrets/; changes nothing
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack check-config "$@"
