#!/usr/bin/env bash
# usage: scripts/migration.sh pre|post NAME    write the file of a new migration, such as: pre add_isbn
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # a Python that lacks its own library starts no script
PYTHONPATH=scripts exec python3 -m stack migration "$@"
