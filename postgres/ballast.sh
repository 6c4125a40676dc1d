#!/usr/bin/env bash
# usage: ballast.sh    creates a file of POSTGRES_BALLAST_MB, to be deleted when the volume is full
set -Eeuo pipefail

readonly root=/var/lib/postgresql/data
readonly file=$root/ballast
# The file is created only if this much of the volume stays free, so that the file never causes the
# alert of status.sh.
# Partner: DISK_PERCENT_LOW in scripts/stack/stories/status.py
readonly percent_left=15

readonly size=$((${POSTGRES_BALLAST_MB:-256} * 1024 * 1024))
# The size in blocks and not the file's length, because a copy of the file may be sparse.
used=0
[[ ! -e $file ]] || used=$(du --block-size=1 "$file" | cut --fields=1)
((used < size || used > size + 1024 * 1024)) || exit 0

rm -f "$file" "$file.new" # an interrupted start leaves ballast.new
read -r total free < <(df --block-size=1 --output=size,avail "$root" | tail -n 1)
if ((size == 0)); then
	exit 0
elif (((free - size) * 100 < total * percent_left)); then
	printf 'no ballast: less than %d %% of the volume would be left beside %d MB\n' \
		"$percent_left" "$((size >> 20))" >&2
	printf 'HINT: free space or lower POSTGRES_BALLAST_MB in .env, then run ./scripts/up.sh\n' >&2
	printf 'RUNBOOK: docs/runbook.md#postgres-volume-full\n' >&2
	exit 1
fi
# The file gets its name when it is complete. With --posix, fallocate works on every file system.
fallocate --posix --length "$size" "$file.new"
mv "$file.new" "$file"
