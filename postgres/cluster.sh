#!/usr/bin/env bash
# Sourced by entrypoint.sh and upgrade.sh: the path of the database, and a function to create one.

readonly root=/var/lib/postgresql/data
version=$(postgres --version)
[[ $version =~ ([0-9]+) ]]
readonly major=${BASH_REMATCH[1]}
export POSTGRES_MAJOR=$major # for backup/restore/directories.py
# One directory for each major version, because an upgrade keeps the old directory.
readonly data=$root/$major

# The caller renames $data.new to $data as its last step, so that a killed start leaves no
# incomplete database in $data.
make_directory() {
	rm -rf "$data.new"
	initdb --pgdata="$data.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 \
		--data-checksums --auth-local=peer --auth-host=scram-sha-256
}
