#!/usr/bin/env bash
# Writes this host's settings into /tmp/nginx, creates the live link on the first start, then
# executes nginx. `test` checks the configuration instead and changes no volume; it takes the
# settings from variables instead of the files. `reload` writes the settings again and makes the
# running nginx reload its configuration and certificates.
# shellcheck disable=SC2016 # $host and the like are nginx' variables
set -Eeuo pipefail

# Partner: SETTINGS in scripts/stack/parts/edge_settings.py
readonly settings=/etc/slipway/settings.env locations=/etc/slipway/service.conf
readonly link=/run/slots/live.sock rendered=/tmp/nginx

fail() {
	printf 'error: %s\n' "$1" >&2
	printf 'HINT: %s\n' "${@:2}" >&2
	exit 1
}

# The scripts write the keys of .env that a reload applies into the file, as KEY='value'.
read_settings() {
	local key value
	[[ -r $settings && -r $locations ]] ||
		fail "nginx cannot read $settings or $locations" "./scripts/up.sh writes both"
	while IFS='=' read -r key value; do
		case $key in
		SLIPWAY_HOST | RATE_LIMIT_PER_SECOND)
			value=${value#\'}
			printf -v "$key" '%s' "${value%\'}"
			;;
		esac
	done <"$settings"
	SERVICE_LOCATIONS=$(cat "$locations")
}

render() {
	local suffix='' groups=X25519:prime256v1:secp384r1 keep='' about
	about=$(nginx -V 2>&1)
	[[ ${SLIPWAY_HOST:-} =~ ^[A-Za-z0-9.-]+$ ]] ||
		fail "SLIPWAY_HOST is '${SLIPWAY_HOST:-}', not a host name" "set SLIPWAY_HOST in .env"
	[[ ${RATE_LIMIT_PER_SECOND:-} =~ ^[1-9][0-9]*$ ]] ||
		fail "RATE_LIMIT_PER_SECOND is '${RATE_LIMIT_PER_SECOND:-}', not a whole number above 0" \
			"set RATE_LIMIT_PER_SECOND in .env"
	[[ ${HTTPS_PORT:-443} == 443 ]] || suffix=:$HTTPS_PORT
	# OpenSSL has the hybrid post-quantum group from 3.5 on; nginx does not start with an unknown
	# name.
	if [[ $about =~ OpenSSL\ (3\.([5-9]|[1-9][0-9])|[4-9])\. ]]; then
		groups=X25519MLKEM768:$groups
	fi
	# After a reload, nginx closes idle client connections at once. From 1.27.4 on, it can keep them
	# open for a while.
	if [[ $about =~ nginx/([0-9.]+) ]] &&
		printf '1.27.4\n%s\n' "${BASH_REMATCH[1]}" | sort --version-sort --check=quiet; then
		keep='keepalive_min_timeout 30s;'
	fi
	mkdir -p "$rendered"
	printf '%s\n' "${SERVICE_LOCATIONS:-}" >"$rendered/service.conf"
	printf '%s\n' "$keep" >"$rendered/keepalive.conf"
	printf 'server_name %s;\n' "$SLIPWAY_HOST" >"$rendered/server_name.conf"
	printf 'return 308 https://$host%s$request_uri;\n' "$suffix" >"$rendered/redirect.conf"
	printf 'ssl_ecdh_curve %s;\n' "$groups" >"$rendered/groups.conf"
	# Requests per second and client; a burst may be twice as many.
	printf 'limit_req_zone $binary_remote_addr zone=client:4m rate=%sr/s;\n' "$RATE_LIMIT_PER_SECOND" \
		>"$rendered/zone.conf"
	printf 'limit_req zone=client burst=%s nodelay;\n' "$((RATE_LIMIT_PER_SECOND * 2))" \
		>"$rendered/burst.conf"
}

_main() {
	[[ ${1:-} == test ]] || read_settings
	render
	case ${1:-} in
	test) exec nginx -c /etc/slipway/current/nginx.conf -t ;;
	reload) exec nginx -c /etc/slipway/current/nginx.conf -s reload ;;
	esac
	# The link is the only record of the live slot, so an existing one stays as it is.
	if [[ ! -L $link ]]; then
		ln -s blue.sock "$link"
	fi
	# (!) nginx' error log has a fixed format that contains query strings, which may contain secrets
	# (conf.d/10-log.conf).
	exec 2> >(exec sed --unbuffered --regexp-extended 's/\?[^" ]*/?[redacted]/g' >&2)
	exec nginx -c /etc/slipway/current/nginx.conf -g 'daemon off;'
}

_main "$@"
