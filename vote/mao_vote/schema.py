"""Tells what the record files of some commits are: their keys, and the kinds of their fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from mao_git import Clone
from mao_shared.errors import NotFound
from mao_shared.models.round import VoteDefinition
from mao_shared.models.schema import MAX_SCHEMA_FILES, FieldSchema, FileSchema, Schema

from . import records
from .file_vote import RecordVote, read_versions
from .ledger import Ledger, read_ledger
from .records import Key, Memory, Rules, summarize_document, summarize_table
from .tree_vote import RULES, find_obstacle, is_own
from .versions import ParsedVersion, TooFewReadable, plan_columns

MAX_SCHEMA_FIELDS = 500  # of a file
MAX_SCHEMA_NOTES = 10  # on a document


def describe_schema(
    clone: Clone,
    commits: Mapping[str, str],
    definition: VoteDefinition,
    paths: Sequence[str],
    base: str | None = None,
) -> Schema:
    """Return what the first `MAX_SCHEMA_FILES` of the files at `paths` are, in the nodes' commits.

    Raises NotFound (`path-not-found`, `ref-not-found`).

    Args:
        commits: by node.
        base: the ground truth before, from whose ledger noise is learnt too.
    """
    chosen = list(dict.fromkeys(paths))
    past = read_ledger(clone, base, RULES).ledger if definition.memory else Ledger()
    files = [_describe_path(clone, commits, definition, path, past) for path in chosen[:MAX_SCHEMA_FILES]]
    return Schema(
        commits=dict(commits),
        definition=definition,
        files=files,
        more=max(len(chosen) - MAX_SCHEMA_FILES, 0),
        unmatched=find_unmatched(clone, commits.values(), definition),
    )


def find_unmatched(clone: Clone, commits: Iterable[str], definition: VoteDefinition) -> list[str]:
    """Return the paths in `files` of a definition that apply to no file of the commits."""
    if not definition.files:
        return []
    unused = {id(rule): rule.path for rule in definition.files}
    for path in {path for commit in commits for path in clone.list_paths(commit) if not is_own(path)}:
        unused.pop(id(definition.rule_for(path)), None)
    return list(unused.values())


def list_record_files(clone: Clone, commits: Iterable[str], definition: VoteDefinition) -> list[str]:
    """Return the paths of files in any of the commits that are voted by records."""
    paths = {path for commit in commits for path in clone.list_paths(commit)}
    return sorted(
        path
        for path in paths
        if records.record_format(path) is not None
        and not is_own(path)
        and not definition.rule_for(path).opaque
    )


def _describe_path(
    clone: Clone, commits: Mapping[str, str], definition: VoteDefinition, path: str, past: Ledger
) -> FileSchema:
    entries = {node: clone.entry(commit, path) for node, commit in commits.items()}
    blobs = {node: entry.id for node, entry in entries.items() if entry is not None and entry.is_file}
    if not blobs:
        raise NotFound(
            f"No node has a file {path}.",
            code="path-not-found",
            next="List the files of a node: maoctl dataset files DATASET --ref NODE",
        )
    file_format, rule = records.record_format(path), definition.rule_for(path)
    if file_format is None or rule.opaque:
        why = "its name is not that of a record file" if file_format is None else "the definition says so"
        return FileSchema(path=path, whole=why)
    obstacles = {blob: find_obstacle(clone, blob, file_format) for blob in set(blobs.values())}
    contents = {blob: clone.read_blob(blob) for blob, why in obstacles.items() if why is None}
    versions = {node: contents[blob] for node, blob in blobs.items() if blob in contents}
    unread = {node: obstacles[blob] or "" for node, blob in blobs.items() if blob not in contents}
    if 2 * len(unread) >= len(blobs):
        return FileSchema(path=path, whole=", ".join(sorted(set(unread.values()))), abstained=unread)
    found = describe_file(path, versions, definition, past.memory(path))
    found.abstained |= unread
    return found


def describe_file(
    path: str,
    versions: Mapping[str, bytes],
    definition: VoteDefinition,
    memory: Mapping[str, Memory] | None = None,
) -> FileSchema:
    """Return what a record file is.

    Args:
        versions: the nodes' contents of it, of which there is at least one.
        memory: field → cells of earlier rounds, to learn noise from.
    """
    file_format, rule = records.record_format(path), definition.rule_for(path)
    if file_format is None:
        return FileSchema(path=path, whole="its name is not that of a record file")
    error = definition.params.error if rule.error is None else rule.error
    request = RecordVote(path, file_format, rule, versions, None, {}, error, definition, {}, memory or {})
    try:
        readings, key, abstained = read_versions(request)
    except TooFewReadable as why:
        return FileSchema(path=path, whole=str(why))
    is_document, layout = readings[0].shape == "document", readings[0].layout
    return FileSchema(
        path=path,
        key=[] if is_document else list(key.columns),
        key_source=key.source,
        document=is_document,
        unsure="; ".join([key.unsure] if key.unsure else layout.notes[:MAX_SCHEMA_NOTES]),
        lists={pattern: list(names) for pattern, names in sorted(layout.keys.items())},
        fields=list(islice(_describe_fields(request, readings, key), MAX_SCHEMA_FIELDS)),
        abstained=abstained,
    )


def _describe_fields(
    request: RecordVote, readings: Sequence[ParsedVersion], key: Key
) -> Iterator[FieldSchema]:
    """Yield the fields that are voted, in the order of the result; of a document by name."""
    rule = request.rule
    rules = Rules(rule, request.blank, not request.file_format.tabular, request.error, memory=request.memory)
    aligned = records.align([reading.version for reading in readings], key)
    if readings[0].shape == "document":
        summaries = summarize_document(aligned, rules)
    else:
        plan = plan_columns(
            readings, key, rule, request.file_format, lambda: None, {}, request.definition.ties
        )
        summaries = summarize_table(aligned, plan.fields, rules)
    for found in summaries:
        yield FieldSchema(
            name=found.name,
            kind=found.kind.kind,
            source=found.kind.source,
            unsure=found.kind.unsure,
            decimal=found.kind.decimal,
            thousands=found.kind.thousands,
            unit=found.kind.unit,
            order=found.kind.order,
            zoned=found.kind.is_zoned,
            missing=list(found.missing),
            nodes=found.nodes,
            measured=found.noise.measured,
            tolerance=found.noise.tolerance.absolute,
            error=found.noise.tolerance.relative,
            noise=found.noise.source,
            declared=found.declared,
        )
