#!/usr/bin/env bash
# usage: scripts/migration.sh pre|post NAME    write the file of a new migration, such as: pre add_isbn
set -Eeuo pipefail

CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
unset PYTHONHOME # with a wrong value, Python does not find its own library
PYTHONPATH=scripts exec python3 -m stack migration "$@"
