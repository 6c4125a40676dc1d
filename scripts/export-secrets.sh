#!/usr/bin/env bash
# usage: scripts/export-secrets.sh [--import] FILE [--help]    pack secrets/ and .env into one encrypted file, or unpack it
set -Eeuo pipefail

export CALLER_DIRECTORY=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack export-secrets "$@"
