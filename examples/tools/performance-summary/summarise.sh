#!/bin/sh
# Summarises input/performance.csv into data/summary.csv and data/summary.md. For the ash of busybox
# alone. The same input gives the same bytes: no clock, no locale, no order that could vary.
set -eu
export LC_ALL=C

INPUT=${MAO_INPUT:-/usr/src/app/input}/performance.csv
DATA=${MAO_DATA:-/usr/src/app/data}
FIRST_METRIC=5

fail() {
    echo "performance-summary: $*" >&2
    exit 1
}

# Stops at the first line that is not what the header promises.
check_input() {
    [ -r "$INPUT" ] || fail "there is no $INPUT; has the step that measures run?"
    awk -F , -v first="$FIRST_METRIC" '
        function bad(why) { printf "performance-summary: line %d: %s\n", NR, why | "cat >&2"; exit 1 }
        NR == 1 { columns = NF; if ($1 != "scheduled_for" || NF < first) bad("not the header expected") }
        NF != columns { bad(NF " fields where the header has " columns) }
        NR > 1 {
            for (i = first; i <= NF; i++)
                if ($i != "" && $i !~ /^-?[0-9]+(\.[0-9]+)?$/) bad("\"" $i "\" is no number")
        }' "$INPUT"
}

# values COLUMN: its numbers, a line each, in the order of the file; an empty field is no value.
values() { awk -F , -v c="$1" 'NR > 1 && $c != "" { print $c }' "$INPUT"; }

# One line metric,n,min,median,mean,max,last for a column.
summarise() {
    mean_and_last=$(values "$2" | awk '{ sum += $1; last = $1 } END { if (NR) printf "%.3f %.3f", sum / NR, last }')
    values "$2" | sort -n | awk -v metric="$1" -v known="$mean_and_last" '
        { v[NR] = $1 }
        END {
            if (!NR) { print metric ",0,,,,,"; exit }
            split(known, mean_last, " ")
            median = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
            printf "%s,%d,%.3f,%.3f,%s,%.3f,%s\n", metric, NR, v[1], median, mean_last[1], v[NR], mean_last[2]
        }'
}

write_csv() {
    echo metric,n,min,median,mean,max,last
    column=$FIRST_METRIC
    for metric in $(head -n 1 "$INPUT" | cut -d , -f "$FIRST_METRIC-" | tr , ' '); do
        summarise "$metric" "$column"
        column=$((column + 1))
    done
}

# What was summarised, in words: nodes in the order in which they first appear.
describe() {
    awk -F , '
        NR == 2 { from = $1 }
        NR > 1 { to = $1; if (!($3 in seen)) { seen[$3]; nodes = nodes (nodes ? ", " : "") $3 } }
        END {
            if (NR < 2) print "No measurement yet."
            else printf "%d measurements of %s, from %s to %s.\n", NR - 1, nodes, from, to
        }' "$INPUT"
}

write_markdown() {
    printf '# Performance\n\n'
    describe
    echo
    awk -F , '
        { printf "|"; for (i = 1; i <= NF; i++) printf " %s |", $i; print "" }
        NR == 1 { print "|---|--:|--:|--:|--:|--:|--:|" }' "$DATA/summary.csv"
}

check_input
write_csv >"$DATA/summary.csv"
write_markdown >"$DATA/summary.md"
cat "$DATA/summary.md"
