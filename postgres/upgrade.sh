#!/usr/bin/env bash
# usage: upgrade.sh    copies all databases at /run/postgresql into MAJOR.new, and compares them
#
# MAJOR is this image's major version. Before it calls this script, scripts/upgrade-postgres.sh
# makes the old server read-only and closes it to all other clients. Afterwards it renames the
# directory.
set -Eeuo pipefail
# shellcheck source=postgres/cluster.sh
. /etc/slipway/cluster.sh

readonly socket=/tmp/upgrade
readonly from=(--host=/run/postgresql --username=postgres)
readonly to=("--host=$socket" --username=postgres)

# Prints every table with its number of rows, and every sequence with its value.
contents() {
	psql "$@" --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 <<-'SQL'
		select format('select %L, count(*) from %I.%I', format('%I.%I', schemaname, tablename), schemaname, tablename)
		from pg_tables where schemaname not in ('pg_catalog', 'information_schema')
		order by schemaname collate "C", tablename collate "C" \gexec
		select schemaname, sequencename, last_value from pg_sequences
		order by schemaname collate "C", sequencename collate "C";
	SQL
}

# usage: copy DATABASE    creates the database, except postgres, which exists already
copy() {
	local options=(--create) before after
	[[ $1 != postgres ]] || options=()
	pg_dump "${from[@]}" "${options[@]}" --dbname="$1" | load >/dev/null
	before=$(contents "${from[@]}" --dbname="$1")
	after=$(contents "${to[@]}" --dbname="$1")
	if [[ $before != "$after" ]]; then
		printf 'error: %s is not the same after the copy; old (<) and new (>):\n' "$1" >&2
		diff <(printf '%s\n' "$before") <(printf '%s\n' "$after") >&2
		return 1
	fi
	printf '%s: %d tables and sequences are the same\n' "$1" "$(sed '/^$/d' <<<"$before" | wc --lines)"
}

load() {
	psql "${to[@]}" --no-psqlrc --quiet --dbname=postgres --set=ON_ERROR_STOP=1
}

_main() {
	[[ ! -e $data ]] || {
		printf 'error: %s already exists\n' "$data" >&2
		exit 1
	}
	make_directory >/dev/null
	# The new server is closed to clients and runs without fsync: an interrupted copy starts again
	# from the beginning, and the last step writes everything to the disk.
	mkdir --mode 0700 "$socket"
	# (!) Options of this process only: in the directory, the next server would read them too.
	local options=(config_file=/etc/slipway/postgresql.conf listen_addresses= "unix_socket_directories=$socket"
		fsync=off full_page_writes=off archive_mode=off wal_level=minimal max_wal_senders=0)
	pg_ctl --pgdata="$data.new" --wait --silent --log=/tmp/upgrade.log \
		--options="$(printf -- '-c %s ' "${options[@]}")" start || {
		cat /tmp/upgrade.log >&2
		exit 1
	}
	printf 'roles\n'
	pg_dumpall "${from[@]}" --globals-only | grep --invert-match '^CREATE ROLE postgres;$' |
		load >/dev/null
	local names name
	names=$(psql "${from[@]}" --no-psqlrc -qtA --command \
		'select datname from pg_database where not datistemplate order by 1')
	while read -r name; do
		copy "$name"
	done <<<"$names"
	vacuumdb "${to[@]}" --all --analyze-only --quiet
	pg_ctl --pgdata="$data.new" --wait --silent stop
	initdb --sync-only --pgdata="$data.new" >/dev/null
	printf 'all databases are copied to %s\n' "$data.new"
}

_main "$@"
