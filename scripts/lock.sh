#!/usr/bin/env bash
# Pins every dependency with hashes: requirements.lock for development and a native node,
# shared/, cli/ and services/*/requirements.lock (subsets of the same pins) for the images. Needs `uv`.
set -euo pipefail
cd "$(dirname "$0")/.."

own=(mao-shared mao-git mao-vote mao-registry mao-runner mao-datamgmt mao-scheduler mao-gateway maoctl mao-node)
omit=()
for name in "${own[@]}"; do omit+=(--no-emit-package "$name"); done

compile() { # OUTPUT INPUT...: no index address and no path of this machine gets into the file
    local output=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --no-annotate "${omit[@]}" \
        --output-file "$output" "$@"
}

compile requirements.lock requirements.in "$@"
compile tests/support/evidence.lock tests/support/evidence.in
echo './shared[traces]' | compile shared/requirements.lock - --constraint requirements.lock
printf './shared\n./cli\n' | compile cli/requirements.lock - --constraint requirements.lock
for service in registry runner datamgmt scheduler gateway; do
    own_parts='./shared[traces]'
    [ "$service" != datamgmt ] || own_parts=$'./shared[traces]\n./git\n./vote'
    printf '%s\n./services/%s\n' "$own_parts" "$service" |
        compile "services/$service/requirements.lock" - --constraint requirements.lock
done
