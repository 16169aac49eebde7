# shellcheck shell=bash
# The Docker Engine: used when it answers, otherwise installed and started. Sourced by machine.sh.

ENGINE_PID=$VAR/dockerd.pid
ENGINE_LOG=$VAR/dockerd.log
ENGINE_DEADLINE=60

engine_answers() { have docker && docker info >/dev/null 2>&1; }

# Somebody else's engine that does not let us in must not be replaced by one of ours.
engine_refuses_us() {
    have docker && ! is_root && [[ $(docker info 2>&1 || true) == *'permission denied'* ]]
}

ensure_engine() {
    engine_answers && return 0
    exec 8>"$VAR/engine.lock"
    flock 8
    engine_answers || bring_engine
    exec 8>&-
}

bring_engine() {
    if engine_refuses_us; then
        die "a Docker Engine is running, but you ($(id -un)) may not use it." \
            "sudo usermod -aG docker $(id -un)" "log out and in again"
    fi
    check_engine_can_come
    # A bare client may lie on PATH without any engine: what counts is dockerd.
    has_dockerd || apt_install "the Docker Engine" docker.io
    if apparmor_lacks_parser; then apt_install "the AppArmor parser that the engine needs here" apparmor; fi
    # The package may have started it, or may be about to.
    engine_answers || start_engine
}

has_dockerd() { have dockerd || [ -x /usr/sbin/dockerd ]; }

# Where the kernel has AppArmor on, no container starts without this program.
apparmor_lacks_parser() {
    grep -qs Y /sys/module/apparmor/parameters/enabled && ! have apparmor_parser && ! [ -x /usr/sbin/apparmor_parser ]
}

check_engine_can_come() {
    can_be_root && return 0
    local commands=("sudo systemctl start docker" "sudo usermod -aG docker $(id -un)" "log out and in again")
    if ! has_dockerd; then
        have apt-get || apt_install "the Docker Engine" docker.io
        commands=("sudo apt-get update" "sudo apt-get install -y --no-install-recommends docker.io" "${commands[@]}")
    fi
    die "no Docker Engine answers, and starting one takes root or password-less sudo." "${commands[@]}"
}

start_engine() {
    if systemd_runs; then start_engine_service; else start_engine_process; fi
    is_root || let_me_in
}

start_engine_service() {
    say "starting the Docker Engine (systemctl start docker), because none answers"
    as_root systemctl start docker || die "the Docker Engine does not start." "sudo journalctl -u docker -n 50"
    wait_until "$ENGINE_DEADLINE" engine_listens ||
        die "the Docker Engine was started but does not answer." "sudo journalctl -u docker -n 50"
}

start_engine_process() {
    # Installing the package may have started one that is not ready yet.
    if another_dockerd_runs && wait_until "$ENGINE_DEADLINE" engine_listens; then return 0; fi
    mount_cgroups
    say "starting dockerd in the background, because no Docker Engine answers (log: $ENGINE_LOG)"
    spawn_dockerd
    wait_until "$ENGINE_DEADLINE" engine_listens_or_ended
    engine_listens || retry_with_legacy_iptables
    # The engine's own pid file is right even where sudo or a wrapper stands in between.
    as_root cat /var/run/docker.pid >"$ENGINE_PID"
}

engine_listens() { as_root docker info >/dev/null 2>&1; }

another_dockerd_runs() { [ -e "/proc/$(cat /var/run/docker.pid 2>/dev/null || echo none)" ]; }

engine_listens_or_ended() { engine_listens || ! dockerd_runs; }

# dockerd as its own session, so that it outlives make; without our lock (8).
spawn_dockerd() {
    : >"$ENGINE_LOG"
    as_root env PATH="${1:+$1:}$PATH:/usr/sbin:/sbin" \
        setsid dockerd </dev/null >>"$ENGINE_LOG" 2>&1 8>&- &
    SPAWNED=$!
}

dockerd_runs() { kill -0 "$SPAWNED" 2>/dev/null || as_root kill -0 "$SPAWNED" 2>/dev/null; }

# Kernels without nf_tables need the older iptables; chosen for dockerd alone, not for the machine.
retry_with_legacy_iptables() {
    if dockerd_runs || ! grep -qi iptables "$ENGINE_LOG" || ! [ -x /usr/sbin/iptables-legacy ]; then
        engine_failed
    fi
    say "trying once more with iptables-legacy, because dockerd could not use iptables"
    mkdir -p "$VAR/legacy-iptables"
    ln -sf /usr/sbin/iptables-legacy "$VAR/legacy-iptables/iptables"
    ln -sf /usr/sbin/ip6tables-legacy "$VAR/legacy-iptables/ip6tables"
    spawn_dockerd "$VAR/legacy-iptables"
    wait_until "$ENGINE_DEADLINE" engine_listens_or_ended
    engine_listens || engine_failed
}

engine_failed() {
    if dockerd_runs; then as_root kill "$SPAWNED"; fi
    tail -n 20 "$ENGINE_LOG" >&2
    die "dockerd did not answer within $ENGINE_DEADLINE s; its last lines are above, all of them in $ENGINE_LOG."
}

# Small machines and containers without an init system have no control groups mounted.
mount_cgroups() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ] || [ -d /sys/fs/cgroup/memory ]; then return 0; fi
    have cgroupfs-mount || apt_install "what mounts the control groups that containers need" cgroupfs-mount
    say "mounting the control groups (cgroupfs-mount), because containers need them"
    as_root cgroupfs-mount
}

# Membership of the group docker counts from the next log-in; the socket's owner counts at once.
let_me_in() {
    engine_answers && return 0
    say "giving you ($(id -un)) the engine's socket: group docker for later, its ownership for now"
    as_root usermod -aG docker "$(id -un)"
    as_root chown "$(id -u)" /var/run/docker.sock
    engine_answers || die "the Docker Engine runs, but you may not use it." "log out and in again"
}

is_our_engine() {
    [ -s "$ENGINE_PID" ] && [ "$(cat "/proc/$(cat "$ENGINE_PID")/comm" 2>/dev/null)" = dockerd ]
}

engine_is_gone() { ! is_our_engine; }

stop_engine() {
    if is_our_engine; then
        say "stopping dockerd ($(cat "$ENGINE_PID")), because it was started by this script"
        as_root kill "$(cat "$ENGINE_PID")"
        wait_until "$ENGINE_DEADLINE" engine_is_gone || die "dockerd ($(cat "$ENGINE_PID")) does not stop."
    fi
    rm -f "$ENGINE_PID"
}
