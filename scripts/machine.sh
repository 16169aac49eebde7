#!/usr/bin/env bash
# Brings what MAO needs onto this machine. Every verb may be run again at any time: what is there
# already is used and left alone. Facts for programs go to stdout, what is done and why to stderr.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VAR=${MAO_VAR_DIR:-$REPO/var}

# shellcheck source=scripts/machine/common.sh
source "$REPO/scripts/machine/common.sh"
# shellcheck source=scripts/machine/engine.sh
source "$REPO/scripts/machine/engine.sh"
# shellcheck source=scripts/machine/packages.sh
source "$REPO/scripts/machine/packages.sh"
# shellcheck source=scripts/machine/etcd.sh
source "$REPO/scripts/machine/etcd.sh"
# shellcheck source=scripts/machine/venv.sh
source "$REPO/scripts/machine/venv.sh"
# shellcheck source=scripts/machine/evidence.sh
source "$REPO/scripts/machine/evidence.sh"
# shellcheck source=scripts/machine/images.sh
source "$REPO/scripts/machine/images.sh"

usage() {
    cat <<'USAGE'
Usage: scripts/machine.sh VERB...

  engine        a Docker Engine that answers; installed and started when there is none
  engine-stop   stop the engine, if it was `engine` that started it
  etcd          the etcd and etcdctl programs, of a version that keeps a federation's rights; fetched to var/etcd
                when there is none on PATH (not started here: a node starts its own)
  git-ssh       the sshd program, for tests of datasets over SSH (never run as a service)
  git-lfs       the git-lfs program, for datasets that keep large files in Git LFS
  browser       the chromium program, for the tests of what a web page may do to a node
  axe           axe-core, which tests check the accessibility of pages with; fetched to var/axe by npm
  promtool      the promtool program of Prometheus, for the tests of metrics and alert rules
  compose       print the command that runs Docker Compose here; installed when there is none
  venv          .venv from requirements.lock, with the project's own packages as editable installs
  evidence-tools  what tests check our evidence with: datalad, roc-validator, runcrate; prints their folder
  base-images   the base images of the services; prints BASE_PYTHON=… and BASE_ETCD=…
  tool-images   build examples/tools/* as mao-example/<name>:<version>; prints each image

Environment:
  PYTHON             the Python for .venv (otherwise the first python3 that is 3.11 or later)
  MAO_LOCAL_BASES    1: build base images here, never pull the public ones
  MAO_DEBIAN_MIRROR  where locally built base images take Debian from
  MAO_VAR_DIR        where etcd, pid files, logs and marks go (default: var/ of the repository)
USAGE
}

run_verb() {
    case $1 in
        engine) ensure_engine ;;
        engine-stop) stop_engine ;;
        etcd) ensure_etcd ;;
        git-ssh) ensure_sshd ;;
        git-lfs) ensure_git_lfs ;;
        browser) ensure_browser ;;
        axe) ensure_axe ;;
        promtool) ensure_promtool ;;
        compose) ensure_compose ;;
        venv) ensure_venv ;;
        evidence-tools) ensure_evidence_tools ;;
        base-images) ensure_base_images ;;
        tool-images) build_tool_images ;;
        -h | --help | help) usage ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
}

main() {
    if [ $# -eq 0 ]; then
        usage >&2
        exit 2
    fi
    mkdir -p "$VAR"
    for verb in "$@"; do
        run_verb "$verb"
    done
}

main "$@"
