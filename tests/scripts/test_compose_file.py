"""Properties of a node that compose.yaml guarantees."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mao_shared.etcd_version import judge
from maoctl.build import COMMIT

REPO = Path(__file__).resolve().parents[2]
TEXT = (REPO / "compose.yaml").read_text()
ALL: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
ONCE = {"setup", "maoctl", "backup", "restore"}  # services that end by themselves
SERVICES = {name: service for name, service in ALL.items() if name not in ONCE}


def users_of(source: str) -> list[str]:
    """Return the services with a mount whose name contains `source`."""
    return [
        name
        for name, service in SERVICES.items()
        if any(source in volume for volume in service.get("volumes", []))
    ]


def test_compose_file_publishes_federation_etcd_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"federation-etcd"}
    assert all(
        re.match(r"\$\{MAO_\w+_BIND:-127\.0\.0\.1\}:", port) for ports in published.values() for port in ports
    )


def test_compose_file_host_network_for_gateway_on_loopback_only() -> None:
    networks = {name: service.get("network_mode") for name, service in SERVICES.items()}
    assert {name for name, mode in networks.items() if mode == "host"} == {"gateway"}
    assert networks["etcd"] == "none"
    assert SERVICES["gateway"]["environment"]["MAO_HOST"] == "${MAO_GATEWAY_BIND:-127.0.0.1}"


def test_compose_file_all_others_serve_on_sockets_in_volume_of_their_own() -> None:
    assert users_of("mao-run:/run/mao") == [name for name in SERVICES if name != "federation-etcd"]
    for name in ("registry", "scheduler", "runner", "datamgmt"):
        environment = SERVICES[name]["environment"]
        assert environment["MAO_SOCKET"] == f"/run/mao/{name}.sock"
        assert environment[f"MAO_{name.upper()}_URL"] == f"unix:///run/mao/{name}.sock"
    urls = [word for word in SERVICES["etcd"]["command"] if "urls=" in word]
    assert urls
    assert all("=unix://localhost:23" in word for word in urls)
    assert "--enable-grpc-gateway=false" in SERVICES["etcd"]["command"]


def test_compose_file_gateway_and_runner_agree_on_whom_gateway_lets_in() -> None:
    for setting in ("MAO_OWNER_OF", "MAO_LOCAL_USERS", "MAO_TOKENS_FILE"):
        assert SERVICES["gateway"]["environment"][setting] == SERVICES["runner"]["environment"][setting]
    assert users_of("./compose.yaml:/etc/mao/compose.yaml:ro") == ["runner", "gateway"]


def test_compose_file_only_runner_reaches_engine() -> None:
    assert users_of("docker.sock") == ["runner"]
    assert not any("docker.sock" in mount for name in ONCE for mount in ALL[name]["volumes"])


def test_compose_file_root_has_few_capabilities_and_runner_drops_root() -> None:
    rights = {name: service["cap_add"] for name, service in ALL.items() if "cap_add" in service}
    assert rights == {
        "setup": ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
        "runner": ["SETUID", "SETGID"],
        "maoctl": ["SETUID", "SETGID", "DAC_READ_SEARCH"],
    }
    assert {name for name, service in ALL.items() if service.get("user")} == set(rights)
    for started in (SERVICES["runner"]["command"], ALL["maoctl"]["entrypoint"]):
        assert started[:4] == ["python3", "-I", "-S", "/opt/mao/step_down.py"]
    assert ALL["setup"]["network_mode"] == "none"
    assert "network_mode" not in SERVICES["runner"]


def test_compose_file_only_data_manager_sees_keys_and_cannot_write_them() -> None:
    assert users_of("ssh") == ["datamgmt"]
    assert all(volume.endswith(":ro") for volume in SERVICES["datamgmt"]["volumes"] if "ssh" in volume)
    assert not any("ssh" in mount for mount in ALL["maoctl"]["volumes"])


def test_compose_file_only_runner_and_data_manager_share_data() -> None:
    assert users_of("${hostdir:-mao-data}:/var/lib/mao") == ["runner", "datamgmt"]
    assert "${hostdir:-mao-data}:/var/lib/mao" in ALL["setup"]["volumes"]


def test_compose_file_prepares_backup_folder_before_data_manager() -> None:
    source = "${MAO_BACKUP_DIR:-mao-backup}"
    assert f"{source}:/var/backup/mao" in ALL["setup"]["volumes"]
    assert users_of(source) == ["datamgmt"]
    for name in ("setup", "datamgmt"):
        assert ALL[name]["environment"]["MAO_BACKUP_DIR"] == "${MAO_BACKUP_DIR:-}"


def test_compose_file_client_is_started_by_nobody_but_person() -> None:
    assert ALL["maoctl"]["profiles"] == ["client"]
    assert not any("maoctl" in service.get("depends_on", {}) for service in ALL.values())
    assert "build" not in ALL["maoctl"]  # `docker compose build` leaves out what is in a profile
    assert ALL["maoctl"]["image"] == ALL["setup"]["image"] == SERVICES["datamgmt"]["image"]


def test_compose_file_services_wait_for_prepared_folders() -> None:
    waiting = {name for name, service in ALL.items() if "setup" in service.get("depends_on", {})}
    assert waiting == {"runner", "datamgmt", "backup", "restore"}
    for name in waiting:
        assert ALL[name]["depends_on"]["setup"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("name", sorted(ONCE))
def test_compose_file_one_shot_services_are_hardened_and_not_restarted(name: str) -> None:
    assert ALL[name]["cap_drop"] == ["ALL"]
    assert ALL[name]["security_opt"] == ["no-new-privileges:true"]
    assert ALL[name]["read_only"] is True
    assert ALL[name].get("restart", "no") == "no"


def test_compose_file_only_registry_and_federations_etcd_write_its_files() -> None:
    assert users_of("mao-federation") == [name for name in SERVICES if name not in ("etcd", "gateway")]
    writers = [
        name
        for name, service in SERVICES.items()
        if "mao-federation:/var/lib/mao-federation" in service.get("volumes", [])
    ]
    assert writers == ["federation-etcd", "registry"]


def test_compose_file_only_registry_writes_what_operator_agreed_to() -> None:
    mounts = {name: SERVICES[name]["volumes"] for name in users_of("mao-agreements")}
    assert {name: mount for name, all_ in mounts.items() for mount in all_ if "mao-agreements" in mount} == {
        "registry": "mao-agreements:/var/lib/mao-agreements",
        "runner": "mao-agreements:/var/lib/mao-agreements:ro",
        "datamgmt": "mao-agreements:/var/lib/mao-agreements:ro",
    }
    for name in ("registry", "runner", "datamgmt", "backup", "restore"):
        assert ALL[name]["environment"]["MAO_AGREEMENTS_DIR"] == "/var/lib/mao-agreements"


@pytest.mark.parametrize("name", SERVICES)
def test_compose_file_every_container_is_hardened_and_restarted(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["backup", "restore"])
def test_compose_file_backup_service_has_no_engine_and_no_keys(name: str) -> None:
    service = ALL[name]
    assert service["profiles"] == ["tools"]
    assert "build" not in service  # `docker compose build` leaves out what is in a profile
    assert not any("docker.sock" in mount or "ssh" in mount for mount in service["volumes"])


def test_compose_file_backup_mounts_other_volumes_read_only() -> None:
    for volume in ("mao-federation:/var/lib/mao-federation", "mao-agreements:/var/lib/mao-agreements"):
        assert f"{volume}:ro" in ALL["backup"]["volumes"]
        assert volume in ALL["restore"]["volumes"]


def test_compose_file_services_wait_for_healthy_store() -> None:
    waiting = {name for name, service in SERVICES.items() if "etcd" in service.get("depends_on", {})}
    assert waiting == set(SERVICES) - {"etcd", "federation-etcd"}
    assert all(SERVICES[name]["depends_on"]["etcd"] == {"condition": "service_healthy"} for name in waiting)


def test_compose_file_everything_that_may_be_set_is_in_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", TEXT))
    found_out_by_make_up = {
        "BASE_PYTHON",
        "BASE_ETCD",
        "MAO_COMMIT",
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_TRUSTED_HOST",
    }
    of_the_call = {"PWD", "MAO_TOKEN"}  # of who calls the client
    named = set(re.findall(r"^#(\w+)=", (REPO / ".env.example").read_text(), re.MULTILINE))
    assert used - found_out_by_make_up - of_the_call == named


def test_compose_file_etcd_image_is_same_everywhere_and_good_for_federation() -> None:
    files = (TEXT, (REPO / "Dockerfile").read_text(), (REPO / "scripts/machine/images.sh").read_text())
    named = [re.findall(r"gcr\.io/etcd-development/etcd:v([\w.-]+)", text) for text in files]
    assert named == [named[0]] * 3
    assert [judge(version) for version in named[0]] == ["good"]


def test_compose_file_images_are_told_commit_that_client_names() -> None:
    last_stage = (REPO / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert f"ARG {COMMIT}=\nENV {COMMIT}=${{{COMMIT}}}\n" in last_stage
    assert SERVICES["datamgmt"]["build"]["args"][COMMIT] == f"${{{COMMIT}:-}}"


@pytest.mark.parametrize(
    ("service", "settings"),
    [
        ("scheduler", {"MAO_LATE_AFTER"}),
        ("registry", {"MAO_SILENT_AFTER", "MAO_CATALOGUES"}),
        ("gateway", {"MAO_KEEP_AUDIT", "MAO_KEEP_AUDIT_DAYS", "MAO_PUBLIC_STATUS"}),
    ],
)
def test_compose_file_settings_reach_service_that_reads_them(service: str, settings: set[str]) -> None:
    environments = {name: one.get("environment", {}) for name, one in SERVICES.items()}
    for setting in settings:
        reading = {name: given[setting] for name, given in environments.items() if setting in given}
        assert reading == {service: f"${{{setting}:-}}"}


def test_compose_file_compose_passes_runners_settings() -> None:
    environment = ALL["runner"]["environment"]
    assert environment["MAO_ENGINE"] == "${MAO_ENGINE:-}"
    assert environment["MAO_SLOTS"] == "${MAO_SLOTS:-}"
