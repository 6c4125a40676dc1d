#!/usr/bin/env bash
# usage: ballast.sh    creates a file of POSTGRES_BALLAST_MB, which an operator can delete for room
set -Eeuo pipefail

readonly root=/var/lib/postgresql/data
readonly file=$root/ballast
# At this limit, it is not created again on a full volume, and it causes no alert.
# Partner: DISK_PERCENT_LOW in scripts/stack/stories/status.py
readonly percent_left=15

readonly size=$((${POSTGRES_BALLAST_MB:-256} * 1024 * 1024))
# The blocks on disk, not the file's length: a copy of the file may be one hole.
used=0
[[ ! -e $file ]] || used=$(du --block-size=1 "$file" | cut --fields=1)
((used < size || used > size + 1024 * 1024)) || exit 0

rm -f "$file" "$file.new" # an interrupted start leaves the second
read -r total free < <(df --block-size=1 --output=size,avail "$root" | tail -n 1)
if ((size == 0)); then
	exit 0
elif (((free - size) * 100 < total * percent_left)); then
	printf 'no ballast: less than %d %% of the volume would be left beside %d MB\n' \
		"$percent_left" "$((size >> 20))" >&2
	printf 'HINT: make room or lower POSTGRES_BALLAST_MB in .env, then ./scripts/up.sh\n' >&2
	printf 'RUNBOOK: docs/runbook.md#postgres-volume-full\n' >&2
	exit 1
fi
# The file gets its name when it is complete. --posix works on every file system.
fallocate --posix --length "$size" "$file.new"
mv "$file.new" "$file"
