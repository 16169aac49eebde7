#!/usr/bin/env bash
# What a run of a one-step pipeline does, by hand and with the same flags: run the tool, commit, push,
# merge into ground-truth, push. Nothing is checked or recorded.
#   same_by_hand.sh init CLONE NODE                      a bare repository CLONE.git and a clone of it
#   same_by_hand.sh run CLONE NODE IMAGE COMMAND...
set -euo pipefail
export GIT_AUTHOR_NAME=bench GIT_AUTHOR_EMAIL=bench@localhost
export GIT_COMMITTER_NAME=bench GIT_COMMITTER_EMAIL=bench@localhost
verb=$1 clone=$2 node=$3
shift 3

init() {
    git init --quiet --bare --initial-branch=ground-truth "$clone.git"
    git clone --quiet "$clone.git" "$clone" 2>/dev/null
    cd "$clone"
    git commit --quiet --allow-empty --message "Begin"
    git push --quiet origin ground-truth
    git checkout --quiet -b "$node"
    git push --quiet origin "$node"
}

run() {
    docker run --rm --name "by-hand-$$" --label mao.bench=by-hand \
        --user "$(stat --format %u:%g "$clone")" --cap-drop ALL --security-opt no-new-privileges \
        --network "${MAO_TOOL_NETWORK_NAME:-mao-tools}" --pids-limit 512 --memory 1g --volume "$clone:/usr/src/app/data" "$@" >"$clone.log" 2>&1
    cd "$clone"
    git add --all
    git commit --quiet --message "A run by hand"
    git push --quiet origin "$node"
    git checkout --quiet ground-truth
    git merge --quiet "$node"
    git push --quiet origin ground-truth
    git checkout --quiet "$node"
}

"$verb" "$@"
