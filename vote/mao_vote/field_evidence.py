"""What the evidence says about fields and groups of nodes, from the reports of a table's vote. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from mao_shared.models.evidence import FieldEvidence, NodeGroup

from .records import RECORD, Camps, Family, FieldReport

MAX_FIELDS = 200  # described one by one
MIN_CAMP_CELLS = 5  # that split the nodes in the same way, to be worth a note
MAX_UNSURE_NOTES = 10
MAX_TIED_WARNINGS = 10


def _public_name(name: str) -> str:
    """Return a field's name as evidence has it: `*` for all fields of records that are voted as a whole."""
    return "*" if name == RECORD else name or "value"


def describe_fields(reports: Sequence[FieldReport]) -> list[FieldEvidence]:
    """Return how each field in which nodes differ was compared."""
    return [
        FieldEvidence(
            name="*" if report.name == RECORD else report.name,
            kind=report.kind.kind,
            source=report.kind.source,
            unsure=report.kind.unsure,
            measured=report.noise.measured,
            tolerance=report.noise.tolerance.absolute,
            error=report.noise.tolerance.relative,
            noise=report.noise.source,
            observed=dict(report.observed),
            tied=report.tied,
        )
        for report in reports[:MAX_FIELDS]
    ]


def describe_groups(reports: Sequence[FieldReport]) -> list[NodeGroup]:
    """Return the groups of nodes that had one voice, with the fields in which they had it."""
    by_nodes: dict[tuple[str, ...], list[tuple[str, Family]]] = defaultdict(list)
    for report in reports:
        for family in report.families:
            by_nodes[family.nodes].append((report.name, family))
    groups = []
    for nodes, found in sorted(by_nodes.items()):
        most = max((family for _, family in found), key=lambda family: (family.shared, -family.errors))
        groups.append(
            NodeGroup(
                nodes=list(nodes),
                declared=not most.shared,
                fields=["*" if name == RECORD else name for name, _ in found],
                shared=most.shared,
                errors=most.errors,
            )
        )
    return groups


def warnings_on_fields(reports: Sequence[FieldReport], groups: Sequence[NodeGroup]) -> Iterator[str]:
    """Yield why decisions may be wrong: unsure kinds, ties, two camps, and groups that err alike.

    Which of two camps is right cannot be seen from the votes, so a group that is one of two camps is not
    said to err.
    """
    unsure = [report for report in reports if report.kind.unsure]
    for report in unsure[:MAX_UNSURE_NOTES]:
        yield f"unsure: {_public_name(report.name)} is compared as {report.kind.kind}: {report.kind.unsure}"
    if len(unsure) > MAX_UNSURE_NOTES:
        yield f"unsure: {len(unsure) - MAX_UNSURE_NOTES} more fields"
    for report in sorted(reports, key=lambda report: -report.tied)[:MAX_TIED_WARNINGS]:
        if report.tied:
            tied = "1 cell" if report.tied == 1 else f"{report.tied} cells"
            yield f"tied: {tied} of {_public_name(report.name)}, where other values have as many voices"
    camps: dict[Camps, int] = defaultdict(int)
    disputed = sum(report.disputed for report in reports)
    for report in reports:
        for sides, cells in report.camps.items():
            camps[sides] += cells
    in_camps: set[tuple[str, ...]] = set()
    for (one, other), cells in sorted(camps.items(), key=lambda item: (-item[1], item[0]))[:1]:
        if cells >= MIN_CAMP_CELLS and 2 * cells > disputed:
            in_camps = {one, other}
            both = f"{', '.join(one)} and {', '.join(other)}"
            yield f"two camps: {both}, in {cells} of {disputed} disputed cells"
    for group in groups:
        if not group.declared and tuple(group.nodes) not in in_camps:
            yield (
                f"{', '.join(group.nodes)} have one voice in {', '.join(group.fields)}: where one of them "
                f"differs from the result, they do so alike ({group.shared} of {group.errors} cells)"
            )
