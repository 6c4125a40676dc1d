#!/usr/bin/env bash
# usage: upgrade.sh    copies all databases of the server at /run/postgresql into a new directory of this image's major
# version, MAJOR.new, and compares them. Called by scripts/upgrade-postgres.sh, which has closed that server to everybody
# else and made it read-only, and gives the directory its name afterwards.
set -Eeuo pipefail
# shellcheck source=postgres/cluster.sh
. /etc/slipway/cluster.sh

readonly socket=/tmp/upgrade
readonly from=(--host=/run/postgresql --username=postgres)
readonly to=("--host=$socket" --username=postgres)

# Every table with the number of its rows, and every sequence with its value.
contents() {
	psql "$@" --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 <<-'SQL'
		select format('select %L, count(*) from %I.%I', format('%I.%I', schemaname, tablename), schemaname, tablename)
		from pg_tables where schemaname not in ('pg_catalog', 'information_schema')
		order by schemaname collate "C", tablename collate "C" \gexec
		select schemaname, sequencename, last_value from pg_sequences
		order by schemaname collate "C", sequencename collate "C";
	SQL
}

# $1: a database. The one named postgres is there already.
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
		printf 'error: %s is there already\n' "$data" >&2
		exit 1
	}
	make_directory >/dev/null
	# Closed, and without what makes it safe: a copy that is cut off is begun anew, and the last step writes it all out.
	mkdir --mode 0700 "$socket"
	# (!) As options of this one server: what stood in the directory would be read by the next one, too.
	local options=(config_file=/etc/slipway/postgresql.conf listen_addresses= "unix_socket_directories=$socket"
		fsync=off full_page_writes=off archive_mode=off wal_level=minimal max_wal_senders=0)
	pg_ctl --pgdata="$data.new" --wait --silent --log=/tmp/upgrade.log \
		--options="$(printf -- '-c %s ' "${options[@]}")" start || {
		cat /tmp/upgrade.log >&2
		exit 1
	}
	printf 'roles\n'
	pg_dumpall "${from[@]}" --globals-only | grep --invert-match '^CREATE ROLE postgres;$' | load >/dev/null
	local names name
	names=$(psql "${from[@]}" --no-psqlrc -qtA --command 'select datname from pg_database where not datistemplate order by 1')
	while read -r name; do
		copy "$name"
	done <<<"$names"
	vacuumdb "${to[@]}" --all --analyze-only --quiet
	pg_ctl --pgdata="$data.new" --wait --silent stop
	initdb --sync-only --pgdata="$data.new" >/dev/null
	printf 'all of it is in %s\n' "$data.new"
}

_main "$@"
