#!/usr/bin/env bash
# Creates the data directory on the first start, then executes the server. With arguments, it
# configures pgBackRest and executes the given program instead. Runs as the user postgres on any
# image that has initdb and postgres on PATH.
set -Eeuo pipefail

# shellcheck source=postgres/cluster.sh
. /etc/slipway/cluster.sh
# The first backup creates it (repo1-path in pgbackrest.conf).
readonly archive=/var/lib/pgbackrest/repository/archive/main/archive.info

fail() {
	printf 'error: %s\n' "$1" >&2
	printf 'HINT: %s\n' "${@:2}" >&2
	exit 1
}

# usage: literal FILE    the file's content as a SQL literal in single quotes
literal() {
	local value
	value=$(<"$1")
	printf "'%s'" "${value//\'/\'\'}"
}

# Writes this installation's part of pgBackRest's configuration to /tmp, readable for this user
# only.
configure_archive() {
	local secret=/run/secrets/backup_key
	[[ -s $secret ]] ||
		fail "no key for the backups in $secret" "scripts/up.sh creates secrets/backup_key"
	(
		umask 077
		mkdir -p /tmp/pgbackrest.d
		printf '[global]\nrepo1-cipher-pass=%s\n\n[main]\npg1-path=%s\n' "$(<"$secret")" "$data" \
			>/tmp/pgbackrest.d/installation.conf
	)
}

create() {
	local secret=/run/secrets/database_password
	[[ -s $secret ]] ||
		fail "no database password in $secret" "scripts/up.sh creates secrets/database_password"
	make_directory
	# With pg_read_all_stats, a migration that waits can name the blocking session of any user.
	printf '%s\n' \
		"CREATE ROLE slipway LOGIN PASSWORD $(literal "$secret");" \
		"GRANT pg_read_all_stats TO slipway;" \
		"CREATE DATABASE slipway OWNER slipway;" |
		postgres --single -D "$data.new" postgres >/dev/null
	mv "$data.new" "$data"
}

# (!) Refuses a volume with a database of an older version and none of this version: Postgres would
# serve an empty database. Also refuses a volume with a newer version: Postgres would serve the
# state from before the upgrade. An older directory beside this version's own is kept by an upgrade.
refuse_other_versions() {
	local file other
	for file in "$root"/*/PG_VERSION; do
		[[ $file =~ /([0-9]+)/PG_VERSION$ ]] || continue
		other=${BASH_REMATCH[1]}
		if ((other > major)) || [[ $other != "$major" && ! -s $data/PG_VERSION ]]; then
			printf 'error: the volume holds a database of Postgres %d, and this image is Postgres %d\n' \
				"$other" "$major" >&2
			printf 'HINT: %s\n' "set POSTGRES_IMAGE in .env to its former value and run ./scripts/up.sh" \
				"after an interrupted upgrade, a comment in .env names the former image" \
				"to upgrade the database: ./scripts/upgrade-postgres.sh" >&2
			printf 'RUNBOOK: docs/runbook.md#postgres-major-upgrade\n' >&2
			exit 1
		fi
	done
}

# (!) Two servers on one directory destroy it, and postmaster.pid does not show a server in another
# container. The lock is held while this descriptor is open, also after exec and in child processes.
# The locked file is in the directory, so a server on another directory, such as that of a restore,
# is not affected.
take_directory() {
	exec 9<>"$data/PG_VERSION"
	flock --nonblock 9 || fail "another server runs on $data, in another container" \
		"docker ps shows it; a killed upgrade leaves PROJECT-postgres-old, which ./scripts/up.sh removes" \
		"otherwise: docker rm --force PROJECT-postgres-old, where PROJECT is COMPOSE_PROJECT_NAME"
}

_main() {
	configure_archive
	/etc/slipway/memory.sh >/tmp/memory.conf # postgresql.conf includes it
	if (($#)); then
		[[ $1 != postgres ]] || take_directory # scripts/upgrade-postgres.sh
		exec "$@"
	fi
	[[ -w $root ]] ||
		fail "$(id -un) cannot write to $root" "the volume must belong to the user postgres"
	refuse_other_versions
	if [[ ! -s $data/PG_VERSION ]]; then
		# (!) An empty database must not silently replace a lost one.
		[[ ! -e $archive ]] || fail "the volume holds no database, but there are backups of one" \
			"./scripts/restore.sh --latest --replace restores it: docs/runbook.md#restore-all" \
			"only for a new database without these backups: delete the volume 'backups' (docker volume rm)"
		create
	fi
	/etc/slipway/ballast.sh || : # it printed why, status.sh shows it, and Postgres serves without it
	take_directory
	exec postgres -D "$data" -c config_file=/etc/slipway/postgresql.conf
}

_main "$@"
