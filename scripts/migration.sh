#!/usr/bin/env bash
# usage: scripts/migration.sh pre|post NAME    write the file of a new migration, such as: pre add_isbn
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH=scripts exec python3 -m stack migration "$@"
