"""Specifies the container of a step, hardened except for what the operator agreed to (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mao_runner.drivers.protocol import Bind, ContainerSpec, EngineRefused
from mao_runner.labels import USER, StepAttempt, container_labels, container_name
from mao_shared.host.data_dir import TOOL_DATA, TOOL_INPUT
from mao_shared.models import Network, Privileges, Run
from mao_shared.models.run import tool_env

REACH_FILES = "DAC_OVERRIDE"
TOOL_ENGINE_SOCKET = "/var/run/docker.sock"  # in the tool's container


@dataclass(frozen=True, slots=True)
class EngineSocket:
    """The engine's socket: its path on the engine's host, and the gid that may open it."""

    host_path: str
    gid: int


def step_container(
    run: Run,
    key: StepAttempt,
    *,
    installation: str,
    data: str,
    input_dir: str | None,
    user: str,
    log_max: int,
    network: str,
    engine_socket: EngineSocket | None = None,
    secret_env: Mapping[str, str] | None = None,
    secret_binds: Sequence[Bind] = (),
) -> ContainerSpec:
    """Return the specification of a step's container.

    Args:
        data, input_dir: paths on the engine's host.
        user: `uid:gid` from `assign_owner`.
        network: the engine's name for it.
        engine_socket: for a step that was granted it.
        secret_env, secret_binds: see `mao_runner.secrets.delivery`.
    """
    spec = run.steps[key.step].spec
    return ContainerSpec(
        name=container_name(run.node, key),
        image=spec.image.pinned,
        labels={**container_labels(installation, run, key), USER: user},
        command=spec.command,
        env={**tool_env(run, run.steps[key.step]), **(secret_env or {})},
        binds=[*workspace_binds(data, input_dir), *socket_binds(engine_socket), *secret_binds],
        user=user,
        memory=spec.limits.memory,
        cpu=spec.limits.cpu,
        pids=spec.limits.pids,
        network=network,
        capabilities=kept_capabilities(spec.privileges),
        new_privileges=spec.privileges.new_privileges,
        groups=[engine_socket.gid] if engine_socket else [],
        log_max=log_max,
    )


def check_host_network(
    network: Network, privileges: Privileges, user: str, operators: frozenset[int]
) -> None:
    """Raise EngineRefused (`host-network-uid`) for a tool that the gateway would take for the operator.

    `operators` are uids that the gateway trusts without a token. With new privileges a tool may become root.
    """
    uid = int(user.partition(":")[0])
    if network != "host" or not operators or not (uid in operators or privileges.new_privileges):
        return
    who = f"as user {uid}" if uid in operators else "with new privileges (possibly as root)"
    raise EngineRefused(
        f"On the host's network a tool that runs {who} could control the node: the gateway trusts its uid.",
        code="host-network-uid",
        next="Give it another user or network ('maoctl tool update --help'), run the node with 'make node', "
        "or set MAO_TOKENS_FILE, which requires tokens from everybody.",
    )


def workspace_binds(data: str, input_dir: str | None) -> list[Bind]:
    binds = [Bind(data, TOOL_DATA)]
    return binds if input_dir is None else [*binds, Bind(input_dir, TOOL_INPUT, read_only=True)]


def socket_binds(engine_socket: EngineSocket | None) -> list[Bind]:
    return [Bind(engine_socket.host_path, TOOL_ENGINE_SOCKET)] if engine_socket else []


def kept_capabilities(privileges: Privileges) -> list[str]:
    """Return the capabilities that a tool keeps. Root also keeps the one to access other users' files."""
    capabilities = list(privileges.capabilities)
    needs_reach = is_root(privileges.user) and REACH_FILES not in capabilities
    return [*capabilities, REACH_FILES] if needs_reach else capabilities


ROOT_UID = 0


def is_root(user: str | None) -> bool:
    """Return True if a tool's record requests root."""
    numbers = parse_user(user)
    return numbers is not None and numbers[0] == ROOT_UID


def parse_user(user: str | None) -> tuple[int, int] | None:
    """Return uid and gid of `root`, `uid` or `uid:gid`; None if no user is given."""
    if user is None:
        return None
    uid, _, gid = user.replace("root", "0").partition(":")
    return int(uid), int(gid or uid)
