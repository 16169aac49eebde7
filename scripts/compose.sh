#!/usr/bin/env bash
# A node under Docker Compose: finds out what compose.yaml cannot know about this machine, then calls compose.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VAR=${MAO_VAR_DIR:-$REPO/var}
READY_SECONDS=180
HERE=$PWD
# What the caller's environment says, before `prepare` fills it up.
declare -A GIVEN=(
    [COMPOSE_PROJECT_NAME]=${COMPOSE_PROJECT_NAME:-}
    [MAO_GATEWAY_BIND]=${MAO_GATEWAY_BIND:-}
    [MAO_GATEWAY_PORT]=${MAO_GATEWAY_PORT:-}
)

# shellcheck source=scripts/machine/common.sh
source "$REPO/scripts/machine/common.sh"

usage() {
    cat <<'USAGE'
Usage: scripts/compose.sh up | down | COMPOSE_COMMAND...

  up      build the images, start the node, return when its gateway is ready
  down    stop the node and remove its containers; data and etcd stay in their volumes
  other   handed to compose as it is, for example: ps, logs -f runner, down --volumes
USAGE
}

machine() { "$REPO/scripts/machine.sh" "$@"; }

# In the checkout, whose compose.yaml and .env are meant; the client works where it is called.
compose() { (cd "$REPO" && PWD=$HERE $COMPOSE "$@"); }

# setting NAME DEFAULT: what compose will use, from the environment or .env.
setting() {
    local value=${!1:-}
    [ -n "$value" ] || value=$(from_file "$1")
    echo "${value:-$2}"
}

# from_file NAME: as compose reads a line of .env, without quotes, or without the blanks and comment behind a value.
from_file() {
    sed -nE "s/\r$//; s/^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*//p" "$REPO/.env" 2>/dev/null | tail -n 1 |
        sed -E "s/^'([^']*)'.*/\1/; t; s/^\"([^\"]*)\".*/\1/; t; s/^#.*//; s/[[:space:]]+#.*//; s/[[:space:]]+$//"
}

# A name that may also be a branch; others need MAO_NODE.
host_name() {
    local name
    name=$(uname -n | cut -d. -f1 | tr '[:upper:]' '[:lower:]')
    if [[ $name =~ ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$ ]]; then echo "$name"; else echo node; fi
}

# The name that the project's node has already, whoever started it; else this host's.
node_name() {
    local gateway made_with name
    gateway=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
        --filter label=com.docker.compose.service=gateway | head -n 1)
    if [ -z "$gateway" ]; then host_name && return; fi
    made_with=$(docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$gateway")
    name=$(sed -nE 's/^(MAO_NODE|workuser)=(.+)/\2/p' <<<"$made_with" | head -n 1)
    echo "${name:-node}"
}

# numbers_of USER[,USER…]: the uids; a container does not know this machine's names.
numbers_of() {
    local user uid uids=()
    for user in ${1//,/ }; do
        if ! uid=$(id -u "$user" 2>/dev/null); then
            [[ $user =~ ^[0-9]+$ ]] || die "MAO_LOCAL_USERS names $user, who is no user here." "id -u $user"
            uid=$user
        fi
        uids+=("$uid")
    done
    (
        IFS=,
        echo "${uids[*]}"
    )
}

# The seed's `etcdhost`, with its `port`, which is etcd's.
seed_etcd() {
    local seed_host seed_port
    seed_host=$(setting etcdhost "") seed_port=$(setting port "")
    case $seed_host in
        "" | *:* | *,*) echo "$seed_host" ;;
        *) echo "$seed_host${seed_port:+:$seed_port}" ;;
    esac
}

# The project of the node that runs from this checkout, say by a plain `docker compose up`; else `mao`. The checkout's
# folder is no good name for a project: a second checkout is the same node.
project() {
    local running
    running=$(docker ps --all --filter "label=com.docker.compose.project.working_dir=$REPO" \
        --filter label=com.docker.compose.service=gateway --format '{{.Label "com.docker.compose.project"}}' | sort -u)
    if [ -n "$running" ] && [ "$(wc -l <<<"$running")" -eq 1 ]; then echo "$running" && return; fi
    # One that is down has its volumes still, and compose names it after the folder.
    running=${REPO##*/}
    running=$(sed -E 's/[^a-z0-9_-]//g; s/^[_-]+//' <<<"${running,,}")
    if docker volume inspect "${running}_mao-etcd" >/dev/null 2>&1 &&
        ! docker volume inspect mao_mao-etcd >/dev/null 2>&1; then echo "$running"; else echo mao; fi
}

# Settings that nobody has chosen, of those that make a node the same one again.
not_chosen() {
    [ -n "$(setting COMPOSE_PROJECT_NAME "")" ] || echo COMPOSE_PROJECT_NAME
    [ -n "$(setting MAO_NODE "$(setting workuser "")")" ] || echo MAO_NODE
}

# keep NAME...: into .env, so that compose without this script means the same node.
keep() {
    local name file=$REPO/.env
    [ $# -eq 0 ] || [ ! -s "$file" ] || [ -z "$(tail -c 1 "$file")" ] || echo >>"$file"
    for name in "$@"; do echo "$name=${!name}" >>"$file"; done
}

prepare() {
    COMPOSE=$(machine compose)
    export COMPOSE_PROJECT_NAME MAO_NODE MAO_GATEWAY_PORT MAO_ETCD_ENDPOINTS MAO_HOSTDIR hostdir MAO_ETCD_ARCH
    export MAO_FEDERATION_PORT MAO_FEDERATION_PEER_PORT MAO_LOCAL_USERS
    COMPOSE_PROJECT_NAME=$(setting COMPOSE_PROJECT_NAME "$(project)")
    MAO_NODE=$(setting MAO_NODE "$(setting workuser "$(node_name)")")
    MAO_GATEWAY_PORT=$(setting MAO_GATEWAY_PORT 8080)
    MAO_ETCD_ENDPOINTS=$(setting MAO_ETCD_ENDPOINTS "$(seed_etcd)")
    MAO_HOSTDIR=$(setting MAO_HOSTDIR "$(setting hostdir "")")
    hostdir=$MAO_HOSTDIR
    MAO_FEDERATION_PORT=$(setting MAO_FEDERATION_PORT 2391)
    MAO_FEDERATION_PEER_PORT=$(setting MAO_FEDERATION_PEER_PORT "$((MAO_FEDERATION_PORT + 1))")
    MAO_LOCAL_USERS=$(numbers_of "$(setting MAO_LOCAL_USERS "")")
    MAO_ETCD_ARCH=$(setting MAO_ETCD_ARCH "$(if [ "$(uname -m)" = aarch64 ]; then echo arm64; fi)")
}

export_base_images() {
    local line
    while read -r line; do export "${line?}"; done < <(machine base-images)
    if [ -z "${BASE_PYTHON:-}" ] || [ -z "${BASE_ETCD:-}" ]; then die "there are no base images to build on."; fi
}

address() {
    local bind
    bind=$(setting MAO_GATEWAY_BIND 127.0.0.1)
    [ "$bind" = 0.0.0.0 ] && bind=127.0.0.1
    echo "http://$bind:$(setting MAO_GATEWAY_PORT 8080)"
}

gateway_is_ready() {
    python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)' \
        "$(address)/readyz" 2>/dev/null
}

# A second checkout that started a node of the same project would take over the volumes of the first.
refuse_second_checkout() {
    local place
    while read -r place; do
        if [ -z "$place" ] || [ "$place" -ef "$REPO" ]; then continue; fi
        die "the compose project $COMPOSE_PROJECT_NAME is that of another checkout, $place; this one would take over its node." \
            "COMPOSE_PROJECT_NAME=another MAO_NODE=another MAO_GATEWAY_PORT=8180 make up   # for a second node" \
            "(cd $place && make down)                # or, to go on with that node from here"
    done < <(docker ps --all --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
        --format '{{.Label "com.docker.compose.project.working_dir"}}' | sort -u)
}

up() {
    local found
    machine engine
    found=$(not_chosen)
    prepare
    refuse_second_checkout
    export_base_images
    # Docker would make them, but as root.
    mkdir -p "$VAR/ssh" "$VAR/tokens" "$VAR/join"
    export MAO_COMMIT
    MAO_COMMIT=$(git -C "$REPO" describe --always --dirty '--exclude=*' --abbrev=12 2>/dev/null || true)
    say "building the images of the node"
    compose build --quiet >"$VAR/compose-build.log" 2>&1 || {
        tail -n 30 "$VAR/compose-build.log" >&2
        die "the images could not be built; the last lines are above, all of them in $VAR/compose-build.log."
    }
    say "starting the node $MAO_NODE ($COMPOSE up, project $COMPOSE_PROJECT_NAME)"
    compose up --detach --remove-orphans >&2
    wait_until "$READY_SECONDS" gateway_is_ready || not_ready
    # shellcheck disable=SC2086
    keep $found
    echo "The node $MAO_NODE is ready: $(address) (API pages: $(address)/docs)"
    echo "Its client, in this folder: $(client) doctor"
}

# The command that calls the client, with what is neither in .env nor the default.
client() {
    local name words=()
    for name in COMPOSE_PROJECT_NAME MAO_GATEWAY_BIND MAO_GATEWAY_PORT; do
        if [ -n "${GIVEN[$name]:-}" ] && ! grep -qs "^$name=${GIVEN[$name]}$" "$REPO/.env"; then
            words+=("$name=${GIVEN[$name]}")
        fi
    done
    echo "${words[*]}${words:+ }$COMPOSE run --rm maoctl"
}

not_ready() {
    compose ps >&2
    compose logs --tail=15 >&2
    die "the gateway at $(address) was not ready within $READY_SECONDS s; what its parts say is above." \
        "scripts/compose.sh logs gateway"
}

main() {
    mkdir -p "$VAR" && [ -w "$VAR" ] || die "$VAR cannot be written: a plain \`docker compose up\` made it, as root." \
        "sudo chown -R $(id -un): $VAR"
    case ${1:-} in
        up) up ;;
        '' | -h | --help | help) usage ;;
        *)
            prepare
            compose "$@"
            ;;
    esac
}

main "$@"
