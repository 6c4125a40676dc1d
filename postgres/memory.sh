#!/usr/bin/env bash
# usage: memory.sh [CGROUPS]    prints the `limit/N` settings of postgresql.conf for this container
set -Eeuo pipefail

readonly groups=${1:-/sys/fs/cgroup}

# Prints this container's memory limit (of cgroup v2 or v1) in kB, or the host's memory if that is
# less.
limit_kb() {
	local limit bytes file
	limit=$(sed -nE 's/^MemTotal: +([0-9]+) kB$/\1/p' /proc/meminfo)
	for file in "$groups/memory.max" "$groups/memory/memory.limit_in_bytes"; do
		[[ -r $file ]] || continue
		bytes=$(<"$file")
		[[ $bytes == max ]] || ((bytes / 1024 >= limit)) || limit=$((bytes / 1024))
	done
	printf '%d\n' "$limit"
}

limit=$(limit_kb)
rules=$(sed -nE "s|^([a-z_]+) = '[^']+' +# limit/([0-9]+): .*|\1 \2|p" "$(dirname "$0")/postgresql.conf")
while read -r name share; do
	printf "%s = '%dkB' # %d kB / %d\n" "$name" "$((limit / share))" "$limit" "$share"
done <<<"$rules"
