"""Every etcd key is built and parsed here; docs/keys.md explains them.

federation store   /mao/registry/{tools,datasets,pipelines}/<name>
                   /mao/registry/references                (guard, see mao_registry/references.py)
                   /mao/members/<node>                     (leased)
                   /mao/signers/<node>
                   /mao/federation                         the federation's name and authority
                   /mao/identities/<node>                  written by core nodes alone
                   /mao/core/<node>                        written by core nodes alone
                   /mao/requests/<node>                    a certificate request
                   /mao/rounds/<dataset>/<round id>
                   /mao/peers/<node>/…                     what only that node may write:
                       announcements/<dataset>/<round id>   attestations/<dataset>/<round id>
                       parts/<dataset>   endorsements/<kind>/<name>
                       node   runs/<pipeline>   asks/<id>   answers/<id> (leased)
                   /mao-authority/…                        the authority's key, for core nodes' eyes alone
node store         /mao/nodes/<node>/enrolments/<pipeline>
                   /mao/nodes/<node>/schedules/<id>
                   /mao/nodes/<node>/ticks/<schedule id>
                   /mao/nodes/<node>/runs/<run id>         active, or ended a moment ago
                   /mao/nodes/<node>/runs-history/<run id, newest first>   ended (mao_shared/run_records.py)
                   /mao/nodes/<node>/runs-index/<phase>/<pipeline>/<run id, newest first>
                   /mao/nodes/<node>/remembered/<pipeline> up to when its runs are known
                   /mao/nodes/<node>/turns/<pipeline>
                   /mao/nodes/<node>/references            (guard: a new schedule rewrites it)
                   /mao/nodes/<node>/idempotency/<digest>  (leased)
                   /mao/nodes/<node>/series/<pipeline>/<step>/<metric>
                   /mao/nodes/<node>/alarms/<id>
                   /mao/nodes/<node>/condition-alarms/<id>
                   /mao/nodes/<node>/open-conditions/<digest of name and subject>
                   /mao/nodes/<node>/store-identity        to notice that etcd's data were lost or set back
                   /mao/nodes/<node>/restored              from which backup it was restored, and when
                   /mao/nodes/<node>/webhooks/<name>
                   /mao/nodes/<node>/deliveries/<alarm id>~<webhook>
                   /mao/nodes/<node>/link                  the federation it has joined
                   /mao/nodes/<node>/contact               when the federation last answered
                   /mao/nodes/<node>/known/<key of the federation store>
                   /mao/nodes/<node>/trusted/<node>
                   /mao/nodes/<node>/shared/<dataset>      since when it has rounds
"""

from __future__ import annotations

import hashlib
import string
from typing import Literal

ROOT = "/mao"
_OF_RUN_IDS = "".join(sorted("-._" + string.digits + string.ascii_letters))
_MIRRORED = str.maketrans(_OF_RUN_IDS, _OF_RUN_IDS[::-1])
_END = "~"  # behind all of them, so that an id comes before those that it begins
RegistryKind = Literal["tools", "datasets", "pipelines"]


def registry_prefix(kind: RegistryKind) -> str:
    return f"{ROOT}/registry/{kind}/"


def registry(kind: RegistryKind, name: str) -> str:
    return registry_prefix(kind) + name


def registry_root() -> str:
    """The registry's records of all kinds, and the guard of their references, lie under this."""
    return f"{ROOT}/registry/"


def all_nodes() -> str:
    """What belongs to single nodes lies under this; several nodes may share one etcd."""
    return f"{ROOT}/nodes/"


def node_root(node: str) -> str:
    """All that is one node's own in its store."""
    return f"{all_nodes()}{node}/"


def references() -> str:
    """Guard of the federation store: every new reference between records rewrites it."""
    return f"{ROOT}/registry/references"


def node_references(node: str) -> str:
    """Guard of the node store: every new reference to an enrolment (a schedule) rewrites it."""
    return f"{ROOT}/nodes/{node}/references"


def members_prefix() -> str:
    return f"{ROOT}/members/"


def member(node: str) -> str:
    return members_prefix() + node


def signers_prefix() -> str:
    return f"{ROOT}/signers/"


def signer(node: str) -> str:
    return signers_prefix() + node


def enrolments_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/enrolments/"


def enrolment(node: str, pipeline: str) -> str:
    return enrolments_prefix(node) + pipeline


def schedules_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/schedules/"


def schedule(node: str, schedule_id: str) -> str:
    return schedules_prefix(node) + schedule_id


def ticks_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/ticks/"


def tick(node: str, schedule_id: str) -> str:
    return ticks_prefix(node) + schedule_id


def runs_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/runs/"


def run(node: str, run_id: str) -> str:
    return runs_prefix(node) + run_id


def runs_root(node: str) -> str:
    """The keys of all runs, those of the history and the index begin with this."""
    return f"{ROOT}/nodes/{node}/runs"


def past_runs_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/runs-history/"


def past_run(node: str, run_id: str) -> str:
    return past_runs_prefix(node) + newest_first(run_id)


def run_index_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/runs-index/"


def run_index(node: str, phase: str, pipeline: str, run_id: str) -> str:
    return f"{run_index_prefix(node)}{phase}/{pipeline}/{newest_first(run_id)}"


def remembered_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/remembered/"


def remembered(node: str, pipeline: str) -> str:
    return remembered_prefix(node) + pipeline


def turns_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/turns/"


def turn(node: str, pipeline: str) -> str:
    return turns_prefix(node) + pipeline


def forgotten_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/forgotten/"


def forgotten(node: str, pipeline: str) -> str:
    return forgotten_prefix(node) + pipeline


def series_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/series/"


def series(node: str, pipeline: str, step: str, metric: str) -> str:
    return f"{series_prefix(node)}{pipeline}/{step}/{metric}"


def alarms_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/alarms/"


def alarm(node: str, alarm_id: str) -> str:
    return alarms_prefix(node) + alarm_id


def condition_alarms_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/condition-alarms/"


def condition_alarm(node: str, alarm_id: str) -> str:
    return condition_alarms_prefix(node) + alarm_id


def open_conditions_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/open-conditions/"


def open_condition(node: str, name: str, subject: str) -> str:
    """A subject may be a key or a path, so only a digest is used."""
    digest = hashlib.sha256(f"{name}\n{subject}".encode()).hexdigest()
    return open_conditions_prefix(node) + digest[:40]


def store_identity(node: str) -> str:
    return f"{ROOT}/nodes/{node}/store-identity"


def restored(node: str) -> str:
    return f"{ROOT}/nodes/{node}/restored"


def webhooks_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/webhooks/"


def webhook(node: str, name: str) -> str:
    return webhooks_prefix(node) + name


def deliveries_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/deliveries/"


def delivery(node: str, alarm_id: str, hook: str) -> str:
    return f"{deliveries_prefix(node)}{alarm_id}~{hook}"


def idempotency(node: str, scope: str, key: str) -> str:
    """`key` comes from outside and may hold anything, so only its digest is used."""
    digest = hashlib.sha256(f"{scope}\n{key}".encode()).hexdigest()
    return f"{ROOT}/nodes/{node}/idempotency/{digest}"


def federation() -> str:
    return f"{ROOT}/federation"


def identities_prefix() -> str:
    return f"{ROOT}/identities/"


def identity(node: str) -> str:
    return identities_prefix() + node


def cores_prefix() -> str:
    return f"{ROOT}/core/"


def core(node: str) -> str:
    return cores_prefix() + node


def certificate_requests_prefix() -> str:
    return f"{ROOT}/requests/"


def certificate_request(node: str) -> str:
    return certificate_requests_prefix() + node


def authority() -> str:
    """Outside of `ROOT`, which every member may read."""
    return "/mao-authority/key"


def peer_authority() -> str:
    """Signs etcd members towards each other, so that who has a client's certificate cannot pass for one."""
    return "/mao-authority/peers"


def all_rounds() -> str:
    """The rounds of all datasets lie under this."""
    return f"{ROOT}/rounds/"


def rounds_prefix(dataset: str) -> str:
    return f"{all_rounds()}{dataset}/"


def round(dataset: str, round_id: str) -> str:  # noqa: A001 (DESIGN's word)
    return rounds_prefix(dataset) + round_id


def all_peers() -> str:
    """What nodes say of themselves lies under this."""
    return f"{ROOT}/peers/"


def peer_root(node: str) -> str:
    """Only `node` may write what begins so."""
    return f"{all_peers()}{node}/"


def announcement(node: str, dataset: str, round_id: str) -> str:
    return f"{peer_root(node)}announcements/{dataset}/{round_id}"


def attestation(node: str, dataset: str, round_id: str) -> str:
    return f"{peer_root(node)}attestations/{dataset}/{round_id}"


def parts_prefix(node: str) -> str:
    return f"{peer_root(node)}parts/"


def part(node: str, dataset: str) -> str:
    return parts_prefix(node) + dataset


def peer_node(node: str) -> str:
    return f"{peer_root(node)}node"


def peer_runs(node: str, pipeline: str) -> str:
    return f"{peer_root(node)}runs/{pipeline}"


def endorsement(node: str, kind: RegistryKind, name: str) -> str:
    return f"{peer_root(node)}endorsements/{kind}/{name}"


def ask(node: str, ask_id: str) -> str:
    return f"{peer_root(node)}asks/{ask_id}"


def answer(node: str, ask_id: str) -> str:
    return f"{peer_root(node)}answers/{ask_id}"


def link(node: str) -> str:
    return f"{ROOT}/nodes/{node}/link"


def contact(node: str) -> str:
    return f"{ROOT}/nodes/{node}/contact"


def known_prefix(node: str) -> str:
    """Copies of the federation store's keys follow, whole: `…/known//mao/registry/tools/x`."""
    return f"{ROOT}/nodes/{node}/known/"


def trusted_prefix(node: str) -> str:
    return f"{ROOT}/nodes/{node}/trusted/"


def trusted(node: str, author: str) -> str:
    return trusted_prefix(node) + author


def shared_prefix(node: str) -> str:
    """Datasets that this node was seen to share with others."""
    return f"{ROOT}/nodes/{node}/shared/"


def split_peer(key: str) -> tuple[str, list[str]]:
    """A key under `all_peers()` → the node that wrote it and the parts behind that."""
    node, *rest = key.removeprefix(all_peers()).split("/")
    return node, rest


def last_part(key: str) -> str:
    """The name or id at the end of a key."""
    return key.rsplit("/", 1)[1]


def newest_first(run_id: str) -> str:
    """An id in a form whose order is the reverse of that of the ids: etcd is quick in rising order alone.

    Run ids begin with their time.
    """
    return run_id.translate(_MIRRORED) + _END


def run_id_of(mirrored: str) -> str:
    """The id that `newest_first` was given."""
    return mirrored.removesuffix(_END).translate(_MIRRORED)


def split_run_index(key: str) -> tuple[str, str, str]:
    """A key of the index of past runs → phase, pipeline and run id. Raises ValueError for any other."""
    phase, pipeline, mirrored = key.split("/")[-3:]
    return phase, pipeline, run_id_of(mirrored)
