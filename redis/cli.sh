#!/usr/bin/env bash
# usage: docker compose exec redis /etc/slipway/cli.sh COMMAND [ARGUMENT ...]
# Runs redis-cli as the operator.
set -Eeuo pipefail

REDISCLI_AUTH=$(</run/secrets/redis_admin_password)
export REDISCLI_AUTH
exec redis-cli --user operator "$@"
