"""The tools' network in Docker, and scripts run on the engine's host through the engine's socket alone.

The host's firewall is set by the host's own programs, in a container that lives for a moment: an empty image,
read-only, with the host's network and no capability but to administer it.
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
HELPER_LIMIT = 60  # seconds
OUTPUT_MAX = 2000  # characters
_NO_SUCH_PATH = re.compile(r"bind source path does not exist: (\S+)")


def ensure_network(client: APIClient, name: str, bridge: str, labels: Mapping[str, str]) -> list[str]:
    """See `Driver.ensure_network`; two nodes may create it at the same time.

    Raises EngineRefused (`tool-network-differs`) if there is one of this name that is not isolated.
    """
    there = _inspect(client, name)
    if there is None:
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
        there = _inspect(client, name)
    if there is None:
        raise EngineUnavailable(f"The network {name} was created and is gone again.")
    if wrong := network_differences(there, bridge):
        raise EngineRefused(
            f"There is a network {name} already, but {'; '.join(wrong)}.",
            code="tool-network-differs",
            next=f"docker network rm {name} (the runner creates it again within seconds), "
            "or choose another name: MAO_TOOL_NETWORK_NAME.",
        )
    return [each["Subnet"] for each in there["IPAM"]["Config"] or [] if ":" not in each["Subnet"]]


def _options(bridge: str) -> dict[str, str]:
    return {
        "com.docker.network.bridge.name": bridge,
        "com.docker.network.bridge.enable_icc": "false",
    }


def network_differences(there: Mapping[str, Any], bridge: str) -> list[str]:
    """Pure: how a network differs from what `ensure_network` creates."""
    options = there.get("Options") or {}
    wrong = [f"its driver is {there.get('Driver')}"] if there.get("Driver") != "bridge" else []
    wrong += [
        f"{key} is {options.get(key)}" for key, value in _options(bridge).items() if options.get(key) != value
    ]
    wrong += ["it has IPv6"] if there.get("EnableIPv6") else []
    return wrong + (["it is internal"] if there.get("Internal") else [])


def remove_network(client: APIClient, name: str) -> None:
    """Does nothing if it is gone; raises EngineRefused while containers are on it."""
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
    """See `Driver.run_on_host`."""
    image = _empty_image(client)
    _remove(client, command.name)  # of a runner that was killed meanwhile
    made = _create_with_mounts(client, image, command)
    try:
        client.start(made)
        code = client.wait(made, timeout=HELPER_LIMIT)["StatusCode"]
        output = client.logs(made, tail=50).decode(errors="replace")
        return int(code), output[-OUTPUT_MAX:].strip()
    finally:
        _remove(client, made)


def _create_with_mounts(client: APIClient, image: str, command: HostCommand) -> str:
    """Hosts have their programs in different places: paths that the engine does not find are left out."""
    paths = [*PROGRAMS, LOCK]
    while paths:
        try:
            return _create(client, image, command, paths)
        except APIError as error:
            missing = _NO_SUCH_PATH.search(str(error.explanation or error))
            if missing is None or missing[1] not in paths:
                raise
            paths.remove(missing[1])
    raise EngineRefused("The engine's host has none of the folders of programs.")


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
    made = client.create_container(
        image,
        ["/bin/sh", "-c", command.script, "sh", *command.arguments],
        name=command.name,
        user="0:0",
        labels=dict(command.labels),
        host_config=host_config,
    )
    return str(made["Id"])


def _empty_image(client: APIClient) -> str:
    name = ":".join(EMPTY_IMAGE)
    try:
        client.inspect_image(name)  # type: ignore[no-untyped-call]  # untyped stub
    except APIError as error:
        if error.status_code != 404:
            raise
        client.import_image_from_data(EMPTY_TAR, *EMPTY_IMAGE)
    return name


def _remove(client: APIClient, container: str) -> None:
    try:
        client.remove_container(container, force=True, v=True)
    except APIError as error:
        if error.status_code not in (404, 409):
            raise
