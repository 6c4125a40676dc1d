#!/usr/bin/env bash
# Hands the users and their passwords' digests to Redis through a file in memory, then becomes the server.
set -Eeuo pipefail

users=$(</etc/slipway/users.conf)
for name in redis_password redis_admin_password; do
	secret=/run/secrets/$name
	if [[ ! -e $secret && $name == redis_admin_password ]]; then
		# A container of before this secret was there, restarted on a newer checkout: it serves, without the operator.
		printf 'warning: no %s; ./scripts/up.sh gives it to Redis, and until then no operator gets in\n' "$secret" >&2
		users=$(grep --invert-match '^user operator ' <<<"$users")
		continue
	elif [[ ! -s $secret ]]; then
		printf 'error: no password in %s\nHINT: ./scripts/up.sh creates the secret %s\n' "$secret" "$name" >&2
		printf 'RUNBOOK: docs/runbook.md#a-service-keeps-restarting\n' >&2
		exit 1
	fi
	digest=$(printf '%s' "$(<"$secret")" | sha256sum)
	users=${users//#${name^^}/#${digest%% *}}
done
umask 077
printf '%s\n' "$users" >/tmp/users.conf
exec redis-server /etc/slipway/redis.conf
