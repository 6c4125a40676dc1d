#!/usr/bin/env bash
# usage: memory.sh [CGROUPS]    the lines of postgresql.conf whose rule is `limit/N`, for this container's memory limit
set -Eeuo pipefail

readonly groups=${1:-/sys/fs/cgroup}

# The limit of this container in kB: of cgroup v2 or v1, or the host's memory where there is none or a larger one.
limit_kb() {
	local limit found file
	limit=$(sed -nE 's/^MemTotal: +([0-9]+) kB$/\1/p' /proc/meminfo)
	for file in "$groups/memory.max" "$groups/memory/memory.limit_in_bytes"; do
		[[ -r $file ]] || continue
		found=$(<"$file")
		[[ $found == max ]] || ((found / 1024 >= limit)) || limit=$((found / 1024))
	done
	printf '%d\n' "$limit"
}

limit=$(limit_kb)
rules=$(sed -nE "s|^([a-z_]+) = '[^']+' +# limit/([0-9]+): .*|\1 \2|p" "$(dirname "$0")/postgresql.conf")
while read -r name share; do
	printf "%s = '%dkB' # %d kB / %d\n" "$name" "$((limit / share))" "$limit" "$share"
done <<<"$rules"
