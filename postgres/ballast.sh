#!/usr/bin/env bash
# usage: ballast.sh    makes the file whose deletion gives a full volume room again, of POSTGRES_BALLAST_MB
set -Eeuo pipefail

readonly root=/var/lib/postgresql/data
readonly file=$root/ballast
# Partner: DISK_PERCENT_LOW in scripts/stack/stories/status.py. So it is neither made again on a volume that is full,
# nor the reason for an alert.
readonly percent_left=15

readonly size=$((${POSTGRES_BALLAST_MB:-256} * 1024 * 1024))
# What the file takes, not what it says: a copy of it may be one hole.
held=0
[[ ! -e $file ]] || held=$(du --block-size=1 "$file" | cut --fields=1)
((held < size || held > size + 1024 * 1024)) || exit 0

rm -f "$file" "$file.new" # the second of a start that was cut off
read -r total free < <(df --block-size=1 --output=size,avail "$root" | tail -n 1)
if ((size == 0)); then
	exit 0
elif (((free - size) * 100 < total * percent_left)); then
	printf 'no ballast: less than %d %% of the volume would be left beside %d MB\n' "$percent_left" "$((size >> 20))" >&2
	printf 'HINT: make room or lower POSTGRES_BALLAST_MB in .env, then ./scripts/up.sh\n' >&2
	printf 'RUNBOOK: docs/runbook.md#postgres-volume-full\n' >&2
	exit 1
fi
# Under another name until it is whole; --posix also where the file system cannot reserve in one step.
fallocate --posix --length "$size" "$file.new"
mv "$file.new" "$file"
