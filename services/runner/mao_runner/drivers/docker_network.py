"""Creates the tools' network in Docker, and runs scripts on the engine's host through the engine's socket.

The host's firewall is set by the host's own programs, in a short-lived container: an empty image, read-only,
with the host's network and no capability except to administer it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from docker import APIClient
from docker.errors import APIError
from docker.types import LogConfig, Mount

from mao_shared.errors import EngineUnavailable

from .docker_responses import one_line
from .protocol import EngineRefused, HostCommand

EMPTY_IMAGE = ("mao/empty", "1")
EMPTY_TAR = bytes(1024)
PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")
LOCK = "/run/xtables.lock"  # of legacy iptables, which two processes must not use at the same time
HELPER_TIMEOUT = 60  # seconds
MAX_OUTPUT = 2000  # characters
_NO_SUCH_PATH = re.compile(r"bind source path does not exist: (\S+)")


def ensure_network(client: APIClient, name: str, bridge: str, labels: Mapping[str, str]) -> list[str]:
    """Create the network if missing (see `Driver.ensure_network`); two nodes may do so at the same time.

    Raises EngineRefused (`tool-network-differs`) if there is one of this name that is not isolated.
    """
    network = _inspect(client, name)
    if network is None:
        try:
            client.create_network(
                name, "bridge", options=_options(bridge), check_duplicate=True, labels=dict(labels)
            )
        except APIError as error:
            if _inspect(client, name) is None:
                raise EngineRefused(
                    f"The engine does not create the network {name}: "
                    f"{one_line(str(error.explanation or error))}.",
                    code="tool-network-refused",
                    next="List the networks with 'docker network ls', and see the engine's log.",
                ) from error
        network = _inspect(client, name)
    if network is None:
        raise EngineUnavailable(f"The network {name} was created, but has been removed since.")
    if wrong := network_differences(network, bridge):
        raise EngineRefused(
            f"The network {name} already exists, but {'; '.join(wrong)}.",
            code="tool-network-differs",
            next=f"Remove it with 'docker network rm {name}' (the runner creates it again within seconds), "
            "or choose another name: MAO_TOOL_NETWORK_NAME.",
        )
    return [pool["Subnet"] for pool in network["IPAM"]["Config"] or [] if ":" not in pool["Subnet"]]


def _options(bridge: str) -> dict[str, str]:
    return {
        "com.docker.network.bridge.name": bridge,
        "com.docker.network.bridge.enable_icc": "false",
    }


def network_differences(network: Mapping[str, Any], bridge: str) -> list[str]:
    """Return how a network differs from what `ensure_network` creates (pure)."""
    options = network.get("Options") or {}
    wrong = [f"its driver is {network.get('Driver')}"] if network.get("Driver") != "bridge" else []
    wrong += [
        f"{key} is {options.get(key)}" for key, value in _options(bridge).items() if options.get(key) != value
    ]
    wrong += ["it has IPv6"] if network.get("EnableIPv6") else []
    return wrong + (["it is internal"] if network.get("Internal") else [])


def remove_network(client: APIClient, name: str) -> None:
    """Remove the network, if it exists. Raises EngineRefused while containers are on it."""
    try:
        client.remove_network(name)
    except APIError as error:
        if error.status_code != 404:
            raise EngineRefused(
                f"The network {name} cannot be removed: {one_line(str(error.explanation or error))}.",
                code="tool-network-in-use",
                next=f"See its containers: docker network inspect {name}",
            ) from error


def _inspect(client: APIClient, name: str) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = client.inspect_network(name)
    except APIError as error:
        if error.status_code == 404:
            return None
        raise
    return document if document["Name"] == name else None  # it may be the prefix of another network's id


def run_on_host(client: APIClient, command: HostCommand) -> tuple[int, str]:
    """Run a script with the host's own programs; see `Driver.run_on_host`."""
    image = ":".join(EMPTY_IMAGE)
    try:
        client.inspect_image(image)  # type: ignore[no-untyped-call]  # untyped stub
    except APIError as error:
        if error.status_code != 404:
            raise
        client.import_image_from_data(EMPTY_TAR, *EMPTY_IMAGE)
    _remove(client, command.name)  # of a runner that was killed
    container = _create_with_mounts(client, image, command)
    try:
        client.start(container)
        code = client.wait(container, timeout=HELPER_TIMEOUT)["StatusCode"]
        output = client.logs(container, tail=50).decode(errors="replace")
        return int(code), output[-MAX_OUTPUT:].strip()
    finally:
        _remove(client, container)


def _create_with_mounts(client: APIClient, image: str, command: HostCommand) -> str:
    """Create the container, without the paths that this host does not have; return its id."""
    paths = [*PROGRAMS, LOCK]
    while paths:
        try:
            return _create(client, image, command, paths)
        except APIError as error:
            missing = _NO_SUCH_PATH.search(str(error.explanation or error))
            if missing is None or missing[1] not in paths:
                raise
            paths.remove(missing[1])
    raise EngineRefused("The engine's host has none of the folders of programs that the firewall rules need.")


def _create(client: APIClient, image: str, command: HostCommand, paths: Sequence[str]) -> str:
    host_config = client.create_host_config(
        mounts=[Mount(path, path, type="bind", read_only=path != LOCK) for path in paths],
        network_mode="host",
        userns_mode="host",
        read_only=True,
        cap_drop=["ALL"],
        cap_add=["NET_ADMIN", "NET_RAW"],
        security_opt=["no-new-privileges:true", "label=disable"],
        pids_limit=64,
        mem_limit=64 * 1024**2,
        log_config=LogConfig(type="json-file", config={}),
    )
    created = client.create_container(
        image,
        ["/bin/sh", "-c", command.script, "sh", *command.arguments],
        name=command.name,
        user="0:0",
        labels=dict(command.labels),
        host_config=host_config,
    )
    return str(created["Id"])


def _remove(client: APIClient, container: str) -> None:
    try:
        client.remove_container(container, force=True, v=True)
    except APIError as error:
        if error.status_code not in (404, 409):
            raise
