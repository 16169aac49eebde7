#!/usr/bin/env bash
# The main job on real input: starts a node, builds two tools, registers them with two datasets, runs a
# two-step pipeline by hand and on a schedule, and shows runs, commits and measured values.
# KEEP=1 leaves the node running. Everything it makes lies in a folder of its own under var/.
set -euo pipefail
cd "$(dirname "$0")/.."

export MAO_NODE=${MAO_NODE:-demo}
export MAO_GATEWAY_PORT=${MAO_GATEWAY_PORT:-8080}
export MAO_URL=http://127.0.0.1:$MAO_GATEWAY_PORT
DEMO_DIR=${MAO_DATA_DIR:-$PWD/var/demo/$(date +%Y%m%d-%H%M%S)}
export MAO_DATA_DIR=$DEMO_DIR/node
LOG=$DEMO_DIR/node.log
SCHEDULE='*/10 * * * * *' # every ten seconds: six fields, the first one counts seconds
TICKS=2

heading() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Shows a command as a person would type it, then runs it.
show() {
    printf '$%s\n' "$(printf ' %q' "$@")"
    "$@"
}
maoctl() { ./dev python -m maoctl "$@"; }

stop_node() {
    [ -n "${NODE_PID:-}" ] && kill -0 "$NODE_PID" 2>/dev/null || return 0
    kill -TERM "$NODE_PID"
    wait "$NODE_PID" || true
}

start_node() {
    mkdir -p "$DEMO_DIR"
    ./dev python -m mao_node >"$LOG" 2>&1 &
    NODE_PID=$!
    trap stop_node EXIT
    if ! maoctl doctor --wait --timeout 60s; then
        echo "The node did not start. Its log:" >&2
        tail -40 "$LOG" >&2
        exit 1
    fi
}

register() {
    local tool image
    while read -r image; do
        tool=${image#*/}
        tool=${tool%%:*}
        show maoctl tool add "$tool" "MAO" "$image" "" "" "$tool"
    done < <(./scripts/machine.sh tool-images)
    show maoctl dataset init performance
    show maoctl dataset init performance-summary
    show maoctl pipeline create system-performance \
        --step system-performance:performance \
        --step performance-summary:performance-summary:performance
}

run_and_schedule() {
    show maoctl pipeline run system-performance --wait
    local job
    echo "\$ maoctl pipeline run system-performance --cron '$SCHEDULE' --seconds"
    job=$(maoctl -o name pipeline run system-performance --cron "$SCHEDULE" --seconds)
    show maoctl job get
    echo "waiting for $TICKS ticks …"
    show maoctl job wait "$job" --runs "$TICKS" --timeout 120s
    show maoctl job remove "$job" --yes
}

show_results() {
    heading "Runs"
    show maoctl run list
    local dataset
    for dataset in performance performance-summary; do
        heading "Commits of the dataset $dataset on its ground truth"
        show maoctl dataset log "$dataset" --branch ground-truth
    done
    heading "Measured values (performance.csv on ground truth)"
    show maoctl dataset cat performance performance.csv
    heading "Summary that step two made of them"
    show maoctl dataset cat performance-summary summary.md
}

heading "1. A node"
start_node
heading "2. Tools, datasets, a pipeline of two steps"
register
heading "3. A run by hand, then a schedule"
run_and_schedule
show_results
heading "Where to look"
echo "dashboard   $MAO_URL/"
echo "API pages   $MAO_URL/docs"
echo "data        $MAO_DATA_DIR"
echo "node's log  $LOG"
if [ -n "${KEEP:-}" ]; then
    trap - EXIT
    disown "$NODE_PID"
    echo "The node goes on running (KEEP=1). Stop it with: kill $NODE_PID"
else
    stop_node
    echo "The node is stopped. KEEP=1 make demo leaves it running."
fi
