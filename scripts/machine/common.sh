# shellcheck shell=bash
# What the verbs of machine.sh share: messages, rights, packages. Sourced, never run.

say() { printf 'machine: %s\n' "$*" >&2; }

# die WHAT_FAILED [NEXT_COMMAND...]
die() {
    printf 'machine: %s\n' "$1" >&2
    shift
    if [ $# -gt 0 ]; then
        printf 'machine: do this, then try again:\n' >&2
        printf '    %s\n' "$@" >&2
    fi
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" -eq 0 ]; }

can_be_root() { is_root || { have sudo && sudo -n true 2>/dev/null; }; }

as_root() {
    if is_root; then "$@"; else sudo -n "$@"; fi
}

systemd_runs() { have systemctl && [ -d /run/systemd/system ]; }

# wait_until SECONDS COMMAND...: success as soon as COMMAND succeeds, failure at the deadline.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

APT_UPDATED=

apt_update() {
    [ -z "$APT_UPDATED" ] || return 0
    as_root apt-get update -qq >&2
    APT_UPDATED=1
}

# apt_install WHY PACKAGE...: stops with the commands to type where this machine does not allow it.
apt_install() {
    local why=$1
    shift
    if ! have apt-get; then
        die "$why is missing, and this is not a Debian or Ubuntu machine on which it could be installed." \
            "install with your package manager what Debian calls: $*"
    fi
    if ! can_be_root; then
        die "$why is missing, and installing it takes root or password-less sudo." \
            "sudo apt-get update" "sudo apt-get install -y --no-install-recommends $*"
    fi
    say "installing $* (apt-get), because $why is missing"
    apt_update
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >"$VAR/apt.log" 2>&1 || {
        tail -n 20 "$VAR/apt.log" >&2
        die "apt-get could not install $*; its last lines are above, all of them in $VAR/apt.log."
    }
}

POLICY=/usr/sbin/policy-rc.d

# Debian starts a service while it installs its package. A policy-rc.d that answers 101 ("not
# allowed") prevents that; a machine that has a policy of its own keeps it.
forbid_service_starts() {
    [ -e "$POLICY" ] && return 0
    printf '#!/bin/sh\n# put here by MAO while it installs packages\nexit 101\n' |
        as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
    trap allow_service_starts EXIT
}

allow_service_starts() {
    if grep -qs 'put here by MAO' "$POLICY"; then as_root rm -f "$POLICY"; fi
    trap - EXIT
}

# install_without_service SERVICE WHY PACKAGE...: the programs only, now and after a reboot.
install_without_service() {
    local service=$1
    shift
    if can_be_root && have apt-get; then forbid_service_starts; fi
    apt_install "$@"
    allow_service_starts
    if systemd_runs; then
        say "disabling the service $service that came with the package: MAO runs the program itself"
        as_root systemctl disable --now --quiet "$service"
    fi
}
