# shellcheck shell=bash
# Programs that come as Debian packages and are used as plain programs. Sourced by machine.sh.

# Tests look at a node from a web page. Ubuntu has Chromium as a snap only, which sees too little of a machine.
ensure_browser() {
    have chromium && return 0
    if grep -qs '^ID=ubuntu' /etc/os-release; then
        say "chromium is missing, and Ubuntu has no package of it: the tests that need it are skipped"
    else
        apt_install "a browser, for the tests of what a web page may do," chromium
    fi
}

AXE_VERSION=4.14.1
AXE_SHA512=1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5

# One script, which tests load into pages; npm only fetches it.
ensure_axe() {
    local target=$VAR/axe/axe-$AXE_VERSION.min.js
    [ -s "$target" ] && return 0
    have npm || apt_install "npm, which fetches axe-core for the tests of the pages," npm
    say "fetching axe-core $AXE_VERSION"
    mkdir -p "$VAR/axe"
    (
        cd "$VAR/axe"
        npm pack --silent "axe-core@$AXE_VERSION" >/dev/null
        echo "$AXE_SHA512  axe-core-$AXE_VERSION.tgz" | sha512sum --check --quiet >&2
        tar -xzf "axe-core-$AXE_VERSION.tgz" package/axe.min.js
        mv package/axe.min.js "$target"
        rm -rf package "axe-core-$AXE_VERSION.tgz"
    )
}

# Only the Debian package of the whole server has promtool; the server is never run.
ensure_promtool() {
    have promtool && return 0
    install_without_service prometheus "promtool, for the tests of metrics and alert rules," prometheus
}

# sshd lies in sbin, which is not on everybody's PATH.
has_sshd() { have sshd || [ -x /usr/sbin/sshd ]; }

ensure_sshd() {
    has_sshd && return 0
    install_without_service ssh "sshd, for the tests of datasets over SSH," openssh-server
}

# The data manager runs git-lfs, which needs git, and ssh-keyscan.
ensure_git_lfs() {
    local missing=()
    have git || missing+=(git)
    have git-lfs || missing+=(git-lfs)
    have ssh-keyscan || missing+=(openssh-client)
    [ ${#missing[@]} -eq 0 ] || apt_install "git-lfs, for datasets with large files" "${missing[@]}"
}

compose_command() {
    if docker compose version >/dev/null 2>&1; then
        echo "docker compose"
    elif docker-compose version >/dev/null 2>&1; then
        echo "docker-compose"
    else
        return 1
    fi
}

# Ubuntu's docker-compose is the old 1.29 that its Python no longer runs.
compose_package() {
    if grep -qs '^ID=ubuntu' /etc/os-release; then echo docker-compose-v2; else echo docker-compose; fi
}

ensure_compose() {
    compose_command && return 0
    apt_install "Docker Compose" "$(compose_package)"
    compose_command || die "Docker Compose was installed but does not run." \
        "docker-compose version   # and see what it says"
}
