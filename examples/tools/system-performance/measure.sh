#!/bin/sh
# Measures this machine and appends one row to data/performance.csv. For the ash of busybox alone.
set -eu
export LC_ALL=C

DATA=${MAO_DATA:-/usr/src/app/data}
CSV=$DATA/performance.csv
HEADER=scheduled_for,measured_at,node,run,hash_mb_s,memory_mb_s,disk_mb_s,fsync_ms,cpus,load1
SCRATCH=$DATA/.system-performance.$$

fail() {
    echo "system-performance: $*" >&2
    exit 1
}

# Hundredths of a second since boot: busybox's date knows whole seconds only.
now() { awk '{ printf "%d", $1 * 100 + 0.5 }' /proc/uptime; }

# repeat_for HUNDREDTHS COMMAND: runs it until that long has passed; sets rounds and took
# (hundredths). The time is measured after the last round, so a slow machine just takes longer.
repeat_for() {
    limit=$1
    shift
    rounds=0
    began=$(now)
    took=0
    while [ "$took" -lt "$limit" ]; do
        "$@"
        rounds=$((rounds + 1))
        took=$(($(now) - began))
    done
}

hash_8_mib() { dd if=/dev/zero bs=1M count=8 2>/dev/null | sha256sum >/dev/null; }
move_256_mib() { dd if=/dev/zero of=/dev/null bs=1M count=256 2>/dev/null; }
write_8_mib() { dd if=/dev/zero of="$SCRATCH" bs=1M count=8 conv=fsync 2>/dev/null; }
write_4_kib_and_sync() { dd if=/dev/zero of="$SCRATCH" bs=4k count=1 conv=fsync 2>/dev/null; }

# rate MIB_A_ROUND: in MB/s, of 10^6 bytes. mean_ms: ms a round.
rate() { awk -v mib="$1" -v n="$rounds" -v t="$took" 'BEGIN { printf "%.1f", mib * 1.048576 * n * 100 / t }'; }
mean_ms() { awk -v n="$rounds" -v t="$took" 'BEGIN { printf "%.3f", t * 10 / n }'; }

# A small write that is synced, the start of dd (about 1 ms) included: taking that off again would
# need a finer clock than busybox has, and give nonsense on a busy machine.
fsync_ms() {
    repeat_for 40 write_4_kib_and_sync
    mean_ms
}

# A value from outside, made safe for a CSV field.
field() { printf '%s' "$1" | tr -c 'A-Za-z0-9._:+-' _; }

check_csv() {
    [ -w "$DATA/." ] || fail "$DATA is not a folder that I may write to"
    if [ -s "$CSV" ] && [ "$(head -n 1 "$CSV")" != "$HEADER" ]; then
        fail "$CSV has other columns; move it away first"
    fi
}

measure() {
    measured_at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    load1=$(cut -d ' ' -f 1 /proc/loadavg)
    repeat_for 35 hash_8_mib
    hash_mb_s=$(rate 8)
    repeat_for 25 move_256_mib
    memory_mb_s=$(rate 256)
    repeat_for 30 write_8_mib
    disk_mb_s=$(rate 8)
    fsync_ms=$(fsync_ms)
}

trap 'rm -f "$SCRATCH"' EXIT
trap 'exit 143' INT TERM

check_csv
measure
row="$(field "${MAO_SCHEDULED_FOR:-$measured_at}"),$measured_at,$(field "${MAO_NODE:-$(hostname)}"),$(field "${MAO_RUN_ID:-none}")"
row="$row,$hash_mb_s,$memory_mb_s,$disk_mb_s,$fsync_ms,$(nproc),$load1"
[ -s "$CSV" ] || echo "$HEADER" >"$CSV"
echo "$row" >>"$CSV"
echo "$HEADER"
echo "$row"
