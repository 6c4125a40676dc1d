#!/usr/bin/env bash
# usage: scripts/export-secrets.sh [--import] FILE [--help]    pack secrets/ and .env into one encrypted file, or unpack it
set -Eeuo pipefail

export CALLER_DIRECTORY=$PWD
CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack export-secrets "$@"
