#!/usr/bin/env bash
# Hands the password to Redis through a file in memory, then becomes the server.
set -Eeuo pipefail

readonly secret=/run/secrets/redis_password
if [[ ! -s $secret ]]; then
	printf 'error: no Redis password in %s\nHINT: scripts/up.sh creates secrets/redis_password\n' "$secret" >&2
	exit 1
fi
umask 077
printf 'requirepass %s\n' "$(<"$secret")" >/tmp/password.conf
exec redis-server /etc/slipway/redis.conf
