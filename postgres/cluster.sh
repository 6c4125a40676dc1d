#!/usr/bin/env bash
# Sourced by entrypoint.sh and upgrade.sh: the database's directory, and how to create a new one.

readonly root=/var/lib/postgresql/data
version=$(postgres --version)
[[ $version =~ ([0-9]+) ]]
readonly major=${BASH_REMATCH[1]}
export POSTGRES_MAJOR=$major # for backup/restore/directories.py
# One directory for each major version: an upgrade keeps the old one until the new one is proven.
readonly data=$root/$major

# The rename comes last: a start that is killed before it leaves no incomplete database in $data.
make_directory() {
	rm -rf "$data.new"
	initdb --pgdata="$data.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 \
		--data-checksums --auth-local=peer --auth-host=scram-sha-256
}
