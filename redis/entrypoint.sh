#!/usr/bin/env bash
# Writes the users with the digests of their passwords to /tmp, then executes the server.
set -Eeuo pipefail

users=$(</etc/slipway/users.conf)
for name in redis_password redis_admin_password; do
	secret=/run/secrets/$name
	if [[ ! -e $secret && $name == redis_admin_password ]]; then
		# This container was created before the secret existed and has restarted with a newer
		# checkout. Redis serves, but no operator can log in.
		printf 'warning: no %s; until ./scripts/up.sh mounts it, no operator can log in\n' \
			"$secret" >&2
		users=$(grep --invert-match '^user operator ' <<<"$users")
		continue
	elif [[ ! -s $secret ]]; then
		printf 'error: no password in %s\n' "$secret" >&2
		printf 'HINT: ./scripts/up.sh creates the secret %s\n' "$name" >&2
		printf 'RUNBOOK: docs/runbook.md#a-service-keeps-restarting\n' >&2
		exit 1
	fi
	digest=$(printf '%s' "$(<"$secret")" | sha256sum)
	users=${users//#${name^^}/#${digest%% *}}
done
umask 077
printf '%s\n' "$users" >/tmp/users.conf
exec redis-server /etc/slipway/redis.conf
