#!/usr/bin/env bash
# usage: scripts/export-secrets.sh [--import] FILE [--help]    secrets/ and .env as one encrypted file, and back
set -Eeuo pipefail

export CALLER_DIRECTORY=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack export-secrets "$@"
