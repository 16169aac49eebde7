# shellcheck shell=bash
# Base images, pulled where they can be and built here where they cannot; and the example tools.
# Sourced by machine.sh.

PUBLIC_PYTHON=python:3.11-slim-bookworm
PUBLIC_ETCD=gcr.io/etcd-development/etcd:v3.5.33
PUBLIC_BUSYBOX=busybox:1.36-musl

PULL_SECONDS=60
UNREACHABLE=$VAR/public-images-unreachable
UNREACHABLE_MINUTES=60

# Answers of base_image.
IMAGE=

ensure_base_images() {
    require_engine
    base_image "$PUBLIC_PYTHON" mao/base-python:local build_base_python
    printf 'BASE_PYTHON=%s\n' "$IMAGE"
    base_image "$PUBLIC_ETCD" mao/base-etcd:local build_base_etcd
    printf 'BASE_ETCD=%s\n' "$IMAGE"
}

require_engine() {
    engine_answers || die "no Docker Engine answers." "scripts/machine.sh engine"
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# base_image PUBLIC LOCAL BUILD: sets IMAGE to the one to build on, making it if it is not there.
base_image() {
    IMAGE=$2
    is_current "$2" "$3" && return 0
    if [ "${MAO_LOCAL_BASES:-}" != 1 ] && { has_image "$1" || pull "$1"; }; then
        IMAGE=$1
        return 0
    fi
    say "building $2, because $1 cannot be pulled"
    "$3" "$2"
}

# An image built here is current while the function that builds it and our root certificates are
# what they were.
is_current() {
    [ "$(docker image inspect --format '{{index .Config.Labels "mao.recipe"}}' "$1" 2>/dev/null)" = "$(recipe_of "$2")" ]
}

recipe_of() {
    {
        declare -f "$1" debian_into_image && cat "$CERTIFICATES" 2>/dev/null
        [ "$1" != build_base_etcd ] || echo "$ETCD_PIN"
    } | sha256sum | cut -c1-16
}

# One failure speaks for all public images for a while: without a network each try costs seconds.
pull() {
    [ -z "$(find "$UNREACHABLE" -mmin "-$UNREACHABLE_MINUTES" 2>/dev/null)" ] || return 1
    say "pulling $1"
    timeout "$PULL_SECONDS" docker pull --quiet "$1" >/dev/null 2>"$VAR/pull.log" && return 0
    say "it cannot be pulled: $(tail -n 1 "$VAR/pull.log")"
    touch "$UNREACHABLE"
    return 1
}

CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

build_base_python() {
    debian_into_image "$1" build_base_python \
        --include=python3,python3-venv,ca-certificates,git,git-lfs,openssh-client \
        --change 'CMD ["python3"]'
}

# The programs alone, where the etcd project's own image has them too.
build_base_etcd() {
    local context
    bring_etcd
    context=$(mktemp -d)
    cp "$ETCD_DIR/bin/etcd" "$ETCD_DIR/bin/etcdctl" "$context/"
    printf 'FROM scratch\nCOPY etcd etcdctl /usr/local/bin/\n' >"$context/Dockerfile"
    build_image "$1" "$context" --label "mao.recipe=$(recipe_of build_base_etcd)"
    rm -rf "$context"
}

# debian_into_image IMAGE RECIPE --include=PACKAGES --change INSTRUCTION
# The machine's root certificates go in too, so that builds trust what this machine trusts.
debian_into_image() {
    local image=$1 recipe=$2 include=$3 change=$5
    have mmdebstrap || apt_install "mmdebstrap, which makes base images," mmdebstrap debian-archive-keyring
    local hooks=(--customize-hook="rm -f \"\$1/etc/resolv.conf\" \"\$1/etc/hostname\"")
    if [ -f "$CERTIFICATES" ]; then hooks+=(--customize-hook="upload $CERTIFICATES $CERTIFICATES"); fi
    as_root_if_possible mmdebstrap --quiet --variant=minbase "$include" "${hooks[@]}" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        bookworm - ${MAO_DEBIAN_MIRROR:+"$MAO_DEBIAN_MIRROR"} 2>"$VAR/mmdebstrap.log" |
        docker import --change "$change" --change "LABEL mao.recipe=$(recipe_of "$recipe")" - "$image" >/dev/null || {
        tail -n 20 "$VAR/mmdebstrap.log" >&2
        die "the base image $image could not be built; the last lines of mmdebstrap are above." \
            "MAO_DEBIAN_MIRROR=<a mirror that you reach> scripts/machine.sh base-images"
    }
}

# mmdebstrap works without root too where user namespaces are allowed.
as_root_if_possible() {
    if can_be_root; then as_root "$@"; else "$@"; fi
}

build_base_busybox() {
    local context
    context=$(mktemp -d)
    static_busybox "$context"
    cat >"$context/Dockerfile" <<'DOCKERFILE'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin && /bin/mkdir -p -m 1777 /tmp"]
ENV PATH=/bin
CMD ["sh"]
DOCKERFILE
    build_image "$1" "$context" --label "mao.recipe=$(recipe_of build_base_busybox)"
    rm -rf "$context"
}

# static_busybox FOLDER: the machine's own, or one out of the package without installing that
# (it would replace the busybox that a machine boots with).
static_busybox() {
    if have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; then
        cp "$(command -v busybox)" "$1/busybox"
        return 0
    fi
    have apt-get || die "no busybox image and no static busybox is at hand." "docker pull $PUBLIC_BUSYBOX"
    say "taking busybox out of the package busybox-static, because the machine has none"
    (
        cd "$1"
        apt-get download -qq busybox-static >&2 2>/dev/null ||
            { can_be_root && apt_update && apt-get download -qq busybox-static >&2; } ||
            die "the package busybox-static cannot be downloaded." "sudo apt-get update"
        dpkg-deb --extract ./*.deb package
        cp package/bin/busybox busybox 2>/dev/null || cp package/usr/bin/busybox busybox
        rm -rf ./*.deb package
    )
}

# build_image IMAGE CONTEXT [ARGUMENT...]: quiet when it goes well.
build_image() {
    local image=$1 context=$2
    shift 2
    docker build --quiet --tag "$image" "$@" "$context" >/dev/null 2>"$VAR/build.log" || {
        cat "$VAR/build.log" >&2
        die "the image $image could not be built; Docker's message is above."
    }
}

build_tool_images() {
    require_engine
    base_image "$PUBLIC_BUSYBOX" mao/base-busybox:local build_base_busybox
    local folder image
    for folder in "$REPO"/examples/tools/*/; do
        image=mao-example/$(basename "$folder"):$(tool_version "$folder")
        build_image "$image" "$folder" --build-arg "BASE=$IMAGE"
        say "built $image on $IMAGE"
        echo "$image"
    done
}

# A tool's version stands in its Dockerfile alone.
tool_version() { sed -n 's/^LABEL org.opencontainers.image.version="\(.*\)"$/\1/p' "$1/Dockerfile"; }
