# shellcheck shell=bash
# The programs of others that judge our evidence in tests: datalad, roc-validator, runcrate; in an
# environment of their own, since they are no part of a node. Sourced by machine.sh.

EVIDENCE=$VAR/evidence-tools
EVIDENCE_LOCK=$REPO/tests/support/evidence.lock

evidence_hash() { sha256sum "$EVIDENCE_LOCK" | cut -d' ' -f1; }

evidence_is_current() {
    [ -x "$EVIDENCE/bin/datalad" ] && [ "$(cat "$EVIDENCE/.lock-hash" 2>/dev/null)" = "$(evidence_hash)" ]
}

ensure_evidence_tools() {
    have git-annex || apt_install "git-annex, without which datalad does not start," git-annex
    exec 8>"$VAR/evidence.lock"
    flock 8
    evidence_is_current || make_evidence_tools
    exec 8>&-
    echo "$EVIDENCE"
}

make_evidence_tools() {
    local python
    python=$(find_python) || die "Python 3.11 or later is needed; ${PYTHON:-python3} is $(python_found)." \
        "sudo apt-get install -y python3 python3-venv"
    say "installing datalad, roc-validator and runcrate into $EVIDENCE"
    ensure_venv_module "$python"
    "$python" -m venv --clear "$EVIDENCE" >&2
    "$EVIDENCE/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes --requirement "$EVIDENCE_LOCK" >"$VAR/evidence-pip.log" 2>&1 || {
        tail -n 20 "$VAR/evidence-pip.log" >&2
        die "pip could not install tests/support/evidence.lock; its last lines are above." \
            "scripts/machine.sh evidence-tools   # again, once the package index can be reached"
    }
    evidence_hash >"$EVIDENCE/.lock-hash"
}
