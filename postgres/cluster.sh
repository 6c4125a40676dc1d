#!/usr/bin/env bash
# Sourced by entrypoint.sh and upgrade.sh: where the database is, and how a new directory for one is made.

readonly root=/var/lib/postgresql/data
version=$(postgres --version)
[[ $version =~ ([0-9]+) ]]
readonly major=${BASH_REMATCH[1]}
export POSTGRES_MAJOR=$major # for backup/restore
# One directory per major version: an upgrade or a restore stands beside the old one until it is proven.
readonly data=$root/$major

# Under another name until it is whole: a start that is killed here leaves nothing that looks like a database.
make_directory() {
	rm -rf "$data.new"
	initdb --pgdata="$data.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 \
		--data-checksums --auth-local=peer --auth-host=scram-sha-256
}
