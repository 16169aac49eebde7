#!/bin/sh
# Starts the service of an image, with what compose.yaml cannot say in one `${NAME:-default}`: the seed's names
# stand in for ours, and the defaults come after both.
export MAO_NODE="${MAO_NODE:-${workuser:-node}}"
if [ -z "${MAO_ETCD_ENDPOINTS:-}${etcdhost:-}" ]; then
    export MAO_ETCD_ENDPOINTS=unix:///run/mao/localhost:2379
fi
[ $# -gt 0 ] || set -- "mao_$MAO_SERVICE"
exec python3 -m "$@"
