"""From a step to the container that runs it, hardened unless the operator agreed to more: pure."""

from __future__ import annotations

from mao_shared.models import Privileges, Run
from mao_shared.tool_env import tool_env
from mao_shared.workspace import TOOL_DATA, TOOL_INPUT

from .drivers import Bind, ContainerSpec
from .labels import USER, Attempt, container_labels, container_name
from .ownership import is_root

REACH_FILES = "DAC_OVERRIDE"


def step_container(
    run: Run,
    key: Attempt,
    *,
    installation: str,
    data: str,
    input_dir: str | None,
    user: str,
    log_max: int,
    network: str,
) -> ContainerSpec:
    """`network`: as the engine calls it; `data` and `input_dir` are the host's paths, `user` the `uid:gid`
    that `ownership.claim_data` gave."""
    spec = run.steps[key.step].spec
    return ContainerSpec(
        name=container_name(run.node, key),
        image=spec.image.pinned,
        labels={**container_labels(installation, run, key), USER: user},
        command=spec.command,
        env=tool_env(run, run.steps[key.step]),
        binds=workspace_binds(data, input_dir),
        user=user,
        memory=spec.limits.memory,
        cpu=spec.limits.cpu,
        pids=spec.limits.pids,
        network=network,
        capabilities=kept_capabilities(spec.privileges),
        new_privileges=spec.privileges.new_privileges,
        log_max=log_max,
    )


def workspace_binds(data: str, input_dir: str | None) -> list[Bind]:
    binds = [Bind(data, TOOL_DATA)]
    return binds if input_dir is None else [*binds, Bind(input_dir, TOOL_INPUT, read_only=True)]


def kept_capabilities(privileges: Privileges) -> list[str]:
    """Root keeps what it needs to write data that is not its own; it is agreed to as `user root`."""
    asked = list(privileges.capabilities)
    needs_reach = is_root(privileges.user) and REACH_FILES not in asked
    return [*asked, REACH_FILES] if needs_reach else asked
