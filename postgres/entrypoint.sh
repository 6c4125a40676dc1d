#!/usr/bin/env bash
# Makes the data directory on the first start, then becomes the server; with arguments, becomes that program instead,
# which then finds pgBackRest configured. Runs as postgres on any image that has initdb and postgres on PATH.
set -Eeuo pipefail

readonly root=/var/lib/postgresql/data
# One directory per major version: an upgrade or a restore stands beside the old one until it is proven.
readonly data=$root/17
# What the first backup makes (repo1-path in pgbackrest.conf).
readonly archive=/var/lib/pgbackrest/repository/archive/main/archive.info

fail() {
	printf 'error: %s\n' "$1" >&2
	printf 'HINT: %s\n' "${@:2}" >&2
	exit 1
}

# A single-quoted SQL literal of a secret file's content, whatever characters it holds.
literal() {
	local value
	value=$(<"$1")
	printf "'%s'" "${value//\'/\'\'}"
}

# The part of pgBackRest's configuration that is of this installation; in memory, closed to others.
configure_archive() {
	local secret=/run/secrets/backup_key
	[[ -s $secret ]] || fail "no key for the backups in $secret" "scripts/up.sh creates secrets/backup_key"
	(
		umask 077
		mkdir -p /tmp/pgbackrest.d
		printf '[global]\nrepo1-cipher-pass=%s\n\n[main]\npg1-path=%s\n' "$(<"$secret")" "$data" \
			>/tmp/pgbackrest.d/installation.conf
	)
}

create() {
	local secret=/run/secrets/database_password
	[[ -s $secret ]] || fail "no database password in $secret" "scripts/up.sh creates secrets/database_password"
	# Under another name until it is whole: a start that is killed here leaves nothing that looks like a database.
	rm -rf "$data.new"
	initdb --pgdata="$data.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 \
		--data-checksums --auth-local=peer --auth-host=scram-sha-256
	# pg_read_all_stats: a migration that waits names the session that blocks it, whoever owns that.
	printf '%s\n' \
		"CREATE ROLE slipway LOGIN PASSWORD $(literal "$secret");" \
		"GRANT pg_read_all_stats TO slipway;" \
		"CREATE DATABASE slipway OWNER slipway;" |
		postgres --single -D "$data.new" postgres >/dev/null
	mv "$data.new" "$data"
}

_main() {
	configure_archive
	/etc/slipway/memory.sh >/tmp/memory.conf # postgresql.conf includes it
	if (($#)); then
		exec "$@"
	fi
	[[ -w $root ]] || fail "$(id -un) cannot write to $root" "the volume must belong to the user postgres"
	if [[ ! -s $data/PG_VERSION ]]; then
		# (!) An empty database in the place of a lost one would be served as if nothing had happened.
		[[ ! -e $archive ]] || fail "the volume holds no database, but there are backups of one" \
			"./scripts/restore.sh --latest --replace brings it back: docs/runbook.md" \
			"only for a new database without them: docker volume rm, of the volume backups"
		create
	fi
	# It says why it cannot; without it a full volume is harder to mend, and Postgres serves as well.
	/etc/slipway/ballast.sh || :
	exec postgres -D "$data" -c config_file=/etc/slipway/postgresql.conf
}

_main "$@"
