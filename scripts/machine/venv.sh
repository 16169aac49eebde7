# shellcheck shell=bash
# .venv from requirements.lock, with the project's own packages as editable ones. Sourced by machine.sh.

VENV=${MAO_VENV:-$REPO/.venv}
LOCK=$REPO/requirements.lock
PACKAGES=(shared git vote cli node services/{registry,runner,datamgmt,scheduler,gateway})

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# The first Python that is new enough; PYTHON, where set, is the only candidate.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if have "$candidate" && is_recent "$candidate"; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

ensure_venv() {
    local python
    if ! venv_is_current; then
        python=$(find_python) || die "MAO needs Python 3.11 or later; ${PYTHON:-python3} is $(python_found)." \
            "sudo apt-get install -y python3 python3-venv   # Debian 12, Ubuntu 24.04 or later" \
            "or name another one: make PYTHON=/path/to/python3.11"
        exec 7>"$VAR/venv.lock"
        flock 7
        venv_is_current || make_venv "$python"
        exec 7>&-
    fi
    packages_are_current || install_packages
}

# What an editable install depends on: names, dependencies and commands of the packages, and where they lie.
packages_hash() {
    (cd "$REPO" && { pwd && cat "${PACKAGES[@]/%//pyproject.toml}"; } | sha256sum | cut -d' ' -f1)
}

packages_are_current() { [ "$(cat "$VENV/.packages-hash" 2>/dev/null)" = "$(packages_hash)" ]; }

# The build backend is in the lock, so no index is asked.
install_packages() {
    local folder site editable=()
    for folder in "${PACKAGES[@]}"; do editable+=(--editable "$REPO/$folder"); done
    say "putting the project's own packages into .venv (pip install --editable)"
    site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    rm -rf "$site/mao.pth" # of versions that linked them in another way, as is metadata without a RECORD
    for folder in "$site"/mao*.dist-info; do [ -e "$folder/RECORD" ] || rm -rf "$folder"; done
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-index \
        --no-deps --no-build-isolation "${editable[@]}" >"$VAR/pip.log" 2>&1 || {
        tail -n 20 "$VAR/pip.log" >&2
        die "pip could not install the project's own packages; its last lines are above, all of them in $VAR/pip.log."
    }
    packages_hash >"$VENV/.packages-hash"
}

python_found() { "${PYTHON:-python3}" --version 2>/dev/null || echo "not there"; }

lock_hash() { sha256sum "$LOCK" | cut -d' ' -f1; }

venv_is_current() {
    [ -x "$VENV/bin/python" ] && is_recent "$VENV/bin/python" &&
        [ "$(cat "$VENV/.lock-hash" 2>/dev/null)" = "$(lock_hash)" ]
}

# An environment that works is brought up to date in place, since others may be running from it.
make_venv() {
    [ -f "$LOCK" ] || die "requirements.lock is missing; it belongs in $REPO." "git checkout requirements.lock"
    if ! is_recent "$VENV/bin/python" || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        say "making .venv with $("$1" --version)"
        ensure_venv_module "$1"
        "$1" -m venv --clear "$VENV" >&2
    fi
    say "installing the packages of requirements.lock into .venv, because the lock is new"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes --requirement "$LOCK" >"$VAR/pip.log" 2>&1 || {
        tail -n 20 "$VAR/pip.log" >&2
        die "pip could not install requirements.lock; its last lines are above, all of them in $VAR/pip.log." \
            "scripts/machine.sh venv   # again, once the package index can be reached"
    }
    lock_hash >"$VENV/.lock-hash"
}

# Debian ships Python without ensurepip; the package that adds it is named after the version.
ensure_venv_module() {
    "$1" -c 'import venv, ensurepip' 2>/dev/null && return 0
    apt_install "Python's venv module" "python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
}
