"""All etcd keys are built and parsed here; docs/keys.md lists the writers and readers of each.

A builder takes the values of its template in order: `run("node-1", run_id)`; the matching prefix takes all
but the last: `runs_prefix("node-1")`.
"""

from __future__ import annotations

import hashlib
import re
import string
from typing import Literal

ROOT = "/mao"
_OF_RUN_IDS = "".join(sorted("-._" + string.digits + string.ascii_letters))
_MIRRORED = str.maketrans(_OF_RUN_IDS, _OF_RUN_IDS[::-1])
_END = "~"  # sorts after all of them, so that an id precedes its extensions
RegistryKind = Literal["tools", "datasets", "pipelines"]


class KeyTemplate:
    """Builds the keys of one kind. `fields`: names of its values."""

    def __init__(self, template: str) -> None:
        self.template = template
        self.fields = re.findall(r"\{(\w+)\}", template)
        self._format = re.sub(r"\{\w+\}", "{}", template)

    def __call__(self, *values: str) -> str:
        if len(values) != len(self.fields):
            raise TypeError(f"the key {self.template} requires {self.fields}, got {values}")
        return self._format.format(*values)


def _key(template: str) -> KeyTemplate:
    return KeyTemplate(ROOT + template)


def _keys(template: str) -> tuple[KeyTemplate, KeyTemplate]:
    """Return the templates of a kind of keys and of their common prefix."""
    return _key(template), _key(template[: template.rindex("{")])


# --- the federation store ---------------------------------------------------------------------------------

registry_root = _key("/registry/")  # records of all kinds, and the guard of their references
references = _key("/registry/references")  # guard: every new reference between records rewrites it
member, members_prefix = _keys("/members/{node}")  # leased
signer, signers_prefix = _keys("/signers/{node}")
federation = _key("/federation")  # its name and authority
identity, identities_prefix = _keys("/identities/{node}")  # written by core nodes alone
core, cores_prefix = _keys("/core/{node}")  # written by core nodes alone
certificate_request, certificate_requests_prefix = _keys("/requests/{node}")
all_rounds = _key("/rounds/")  # of all datasets
round, rounds_prefix = _keys("/rounds/{dataset}/{round_id}")  # noqa: A001 (the glossary's word)
all_peers = _key("/peers/")  # records that nodes write about themselves
peer_root = _key("/peers/{node}/")  # writable for that node only
announcement = _key("/peers/{node}/announcements/{dataset}/{round_id}")
attestation = _key("/peers/{node}/attestations/{dataset}/{round_id}")
part, parts_prefix = _keys("/peers/{node}/parts/{dataset}")
endorsement = _key("/peers/{node}/endorsements/{kind}/{name}")
peer_node = _key("/peers/{node}/node")
peer_runs = _key("/peers/{node}/runs/{pipeline}")
peer_ticks, peer_ticks_prefix = _keys("/peers/{node}/ticks/{pipeline}")
ask = _key("/peers/{node}/asks/{ask_id}")  # leased, as are answers
answer = _key("/peers/{node}/answers/{ask_id}")

# Readable for core nodes only, so outside of ROOT, which every member may read. The second signs the peer
# certificates of etcd members, so that a client's certificate is not valid for a member.
authority = KeyTemplate("/mao-authority/key")
peer_authority = KeyTemplate("/mao-authority/peers")

# --- the node store ---------------------------------------------------------------------------------------

all_nodes = _key("/nodes/")  # several nodes may share one etcd
node_root = _key("/nodes/{node}/")
enrolment, enrolments_prefix = _keys("/nodes/{node}/enrolments/{pipeline}")
schedule, schedules_prefix = _keys("/nodes/{node}/schedules/{schedule_id}")
tick, ticks_prefix = _keys("/nodes/{node}/ticks/{schedule_id}")
run, runs_prefix = _keys("/nodes/{node}/runs/{run_id}")  # active or recently ended
runs_root = _key("/nodes/{node}/runs")  # common prefix of live runs, history and index
past_runs_prefix = _key("/nodes/{node}/runs-history/")  # ended (mao_shared/runs/records.py)
run_index_prefix = _key("/nodes/{node}/runs-index/")
remembered, remembered_prefix = _keys("/nodes/{node}/remembered/{pipeline}")  # how far back runs are known
forgotten, forgotten_prefix = _keys("/nodes/{node}/forgotten/{pipeline}")
turn, turns_prefix = _keys("/nodes/{node}/turns/{pipeline}")
node_references = _key("/nodes/{node}/references")  # guard: every new schedule rewrites it
series_prefix = _key("/nodes/{node}/series/")
series = _key("/nodes/{node}/series/{pipeline}/{step}/{metric}")
analyses_prefix = _key("/nodes/{node}/analyses/")  # pending analyses of finished runs
analysis = _key("/nodes/{node}/analyses/{run_id}~{step}")
alarm, alarms_prefix = _keys("/nodes/{node}/alarms/{alarm_id}")
condition_alarm, condition_alarms_prefix = _keys("/nodes/{node}/condition-alarms/{alarm_id}")
open_conditions_prefix = _key("/nodes/{node}/open-conditions/")
store_identity = _key("/nodes/{node}/store-identity")  # to detect that etcd's data was lost or reset
restored = _key("/nodes/{node}/restored")  # from which backup it was restored, and when
webhook, webhooks_prefix = _keys("/nodes/{node}/webhooks/{name}")
deliveries_prefix = _key("/nodes/{node}/deliveries/")
delivery = _key("/nodes/{node}/deliveries/{alarm_id}~{webhook}")
channel, channels_prefix = _keys("/nodes/{node}/channels/{name}")
rule, rules_prefix = _keys("/nodes/{node}/rules/{name}")
heartbeat, heartbeats_prefix = _keys("/nodes/{node}/heartbeats/{pipeline}")
notice, notices_prefix = _keys("/nodes/{node}/notices/{alarm_id}")
message, messages_prefix = _keys("/nodes/{node}/messages/{message_id}")
pipeline_health, pipeline_healths_prefix = _keys("/nodes/{node}/pipeline-health/{pipeline}")
check_health_prefix = _key("/nodes/{node}/check-health/")
check_health = _key("/nodes/{node}/check-health/{pipeline}/{step}")
link = _key("/nodes/{node}/link")  # the federation that the node has joined
contact = _key("/nodes/{node}/contact")  # when the federation last answered
known_prefix = _key("/nodes/{node}/known/")  # followed by a key of the federation store
secret, secrets_prefix = _keys("/nodes/{node}/secrets/{name}")
trusted, trusted_prefix = _keys("/nodes/{node}/trusted/{author}")
audit_entry = _key("/nodes/{node}/audit/{entry_id}")  # the id mirrored, see `newest_first`
audit_prefix = _key("/nodes/{node}/audit/")
shared_prefix = _key("/nodes/{node}/shared/")  # datasets that this node shares with others

# --- keys with computed parts -----------------------------------------------------------------------------


def registry_prefix(kind: RegistryKind) -> str:
    return f"{ROOT}/registry/{kind}/"


def registry(kind: RegistryKind, name: str) -> str:
    return registry_prefix(kind) + name


def past_run(node: str, run_id: str) -> str:
    return past_runs_prefix(node) + newest_first(run_id)


def run_index(node: str, phase: str, pipeline: str, run_id: str) -> str:
    return f"{run_index_prefix(node)}{phase}/{pipeline}/{newest_first(run_id)}"


def open_condition(node: str, name: str, subject: str) -> str:
    """Return the key of an open condition, with a digest of its name and subject, which is any text."""
    digest = hashlib.sha256(f"{name}\n{subject}".encode()).hexdigest()
    return open_conditions_prefix(node) + digest[:40]


def idempotency(node: str, scope: str, key: str) -> str:
    """Return the key of an Idempotency-Key, with a digest, since clients send any text."""
    digest = hashlib.sha256(f"{scope}\n{key}".encode()).hexdigest()
    return f"{ROOT}/nodes/{node}/idempotency/{digest}"


# --- parsing ----------------------------------------------------------------------------------------------


def split_peer(key: str) -> tuple[str, list[str]]:
    """Split a key under `all_peers()` into the node that wrote it and the remaining parts."""
    node, *rest = key.removeprefix(all_peers()).split("/")
    return node, rest


def last_part(key: str) -> str:
    """Return the name or id at the end of a key."""
    return key.rsplit("/", 1)[1]


def newest_first(run_id: str) -> str:
    """Return the id in a form that sorts in reverse, since etcd reads only ascending ranges efficiently.

    Run ids begin with their time.
    """
    return run_id.translate(_MIRRORED) + _END


def mirrored_run_id(mirrored: str) -> str:
    """Return the run id for a result of `newest_first`."""
    return mirrored.removesuffix(_END).translate(_MIRRORED)


def split_run_index(key: str) -> tuple[str, str, str]:
    """Split a key of the run index into phase, pipeline and run id; raises ValueError for others."""
    phase, pipeline, mirrored = key.split("/")[-3:]
    return phase, pipeline, mirrored_run_id(mirrored)
