"""What a field of a record was in each commit of a branch that changed its file, from the repository alone.

Commits are found by comparing ids; nothing is checked out. Contents are read one at a time, each distinct one
once as far as `MAX_REMEMBERED` readings go, and only while the caller reads on.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain

from mao_git import Clone, ContentMissing, FileVersion, LogEntry, RepositoryError
from mao_git.file_history import PAUSE_COMMITS
from mao_shared.commit_messages import Origin, read_origin
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.models.dataset import ValueVersion
from mao_shared.models.round import FileRule

from . import records
from .explain import key_readings
from .records import RecordFormat
from .round_history import newest_evidence
from .value_reader import Question, Reading, ValueReader, close_names

ENDINGS = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson")
MAX_TEXT = 2000  # characters; longer values are truncated
MAX_REMEMBERED = 4096  # readings of contents, for files that return to what they were
MAX_FIRST_ROWS = 1000  # before the first value is found
MAX_FIRST_BYTES = 64 << 20  # to read before that
MAX_FIRST_COMMITS = 200_000  # to walk before that
BATCH_ROWS = 100
BATCH_BYTES = 4 << 20  # of contents, after which the rows found so far are handed on


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """The value to follow. `key`: as for `explain_cell`; `by`: key columns, if they are not to be inferred.

    `since`, `until`: times of commits; `limit`: the newest versions only.
    """

    file: str
    key: str
    field: str
    by: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None

    def has(self, moment: datetime) -> bool:
        """True if a time lies in the period."""
        return (self.since is None or moment >= self.since) and (self.until is None or moment <= self.until)


def open_history(clone: Clone, tip: str, query: HistoryQuery) -> Iterator[list[ValueVersion]]:
    """Find a value in the commits up to `tip`; return its versions in batches, newest first.

    A batch may be empty: the search goes on. Follows first parents. A version that cannot be read is a row
    with the reason.

    Raises InvalidInput (`not-records`) for a file that is not read as records, and NotFound
    (`path-not-found`, `record-not-found`, `field-not-found`) if no version has such a value.
    """
    file_format = records.record_format(query.file)
    if file_format is None:
        raise InvalidInput(
            f"{query.file!r} is not a record file: its name does not end in {' '.join(ENDINGS)}.",
            code="not-records",
            next="Name a record file. The commits that changed another one: git log --first-parent -- FILE",
        )
    history = _History(clone, tip, query, file_format)
    rows = history.rows()
    first: list[ValueVersion] = []
    walked = 0
    for row in rows:
        if row is not None:
            first.append(row)
        walked += 0 if row else PAUSE_COMMITS
        is_found = row is not None and row.state == "value"
        if is_found or len(first) >= MAX_FIRST_ROWS or walked >= MAX_FIRST_COMMITS:
            break
        if history.bytes_read > MAX_FIRST_BYTES:
            break
    else:
        history.check_found(first)
    return history.batches(chain(first, rows))


class _History:
    """One walk over the versions of a file."""

    def __init__(self, clone: Clone, tip: str, query: HistoryQuery, file_format: RecordFormat) -> None:
        self._clone, self._tip, self._query, self._format = clone, tip, query, file_format
        evidence = newest_evidence(clone)
        described = None
        if evidence is not None:
            described = next((found for found in evidence.files if found.path == query.file), None)
        rule = FileRule() if evidence is None else evidence.definition.rule_for(query.file)
        voted_key = [] if described is None or described.key in (None, ["path"]) else described.key or []
        question = Question(key_readings(query.key), query.field, query.by)
        self._reader = ValueReader(question, file_format, rule, voted_key)
        self._readings: OrderedDict[str, Reading] = OrderedDict()
        self._has_file = False
        self.bytes_read = 0

    def rows(self) -> Iterator[ValueVersion | None]:
        """Yield the versions of the period, newest first, and None while the walk finds none."""
        pending: tuple[FileVersion, Reading] | None = None
        count = 0
        path = "/".join(filter(None, self._query.file.split("/")))
        for version in self._clone.file_versions(self._tip, path) if "\0" not in path else ():
            if version is None:
                yield None
                continue
            self._has_file = self._has_file or (version.entry is not None and version.entry.is_file)
            is_asked = self._query.has(version.commit.time)
            if pending is None and not is_asked:
                continue
            reading = self._read(version)
            if pending is not None:
                yield self._row(*pending, before=reading)
                count += 1
                if count == self._query.limit:
                    return
            pending = (version, reading) if is_asked else None
        if pending is not None:
            yield self._row(*pending, before=Reading("no-file"))

    def batches(self, rows: Iterator[ValueVersion | None]) -> Iterator[list[ValueVersion]]:
        """Yield the rows in lists; a list ends after enough rows or bytes of work, and with each None."""
        batch: list[ValueVersion] = []
        begin = self.bytes_read
        for row in rows:
            if row is not None:
                batch.append(row)
            if row is None or len(batch) >= BATCH_ROWS or self.bytes_read - begin >= BATCH_BYTES:
                yield batch
                batch, begin = [], self.bytes_read
        if batch:
            yield batch

    def _read(self, version: FileVersion) -> Reading:
        if version.entry is None:
            return Reading("no-file", reason="the commit removed the file")
        if not version.entry.is_file:
            return Reading("no-file", reason="it is a folder, a link or a submodule there")
        content = version.entry.id
        reading = self._readings.pop(content, None)
        if reading is None:
            reading = _shorten(self._read_content(version.commit.commit, content))
        self._readings[content] = reading
        if len(self._readings) > MAX_REMEMBERED:
            self._readings.popitem(last=False)
        return reading

    def _read_content(self, commit: str, content: str) -> Reading:
        max_size = records.MAX_SHOWN_BYTES[self._format]
        try:
            opened = self._clone.open_blob(commit, content)
            if opened.size > max_size:
                return Reading("unreadable", reason=f"it is larger than {max_size >> 20} MiB")
            data = b"".join(opened.pieces)
        except ContentMissing:
            return Reading("unreadable", reason="its content is in Git LFS, and not in this clone")
        except RepositoryError as error:
            return Reading("unreadable", reason=f"its content cannot be read: {error}")
        self.bytes_read += len(data)
        return self._reader.read(data)

    def _row(self, version: FileVersion, reading: Reading, *, before: Reading) -> ValueVersion:
        is_known = version.unknown is None and "unreadable" not in (reading.state, before.state)
        origin = self._origin(version.commit)
        return ValueVersion(
            time=version.commit.time,
            commit=version.commit.commit,
            run=origin.run,
            step=origin.step,
            round=origin.round,
            tick=origin.tick,
            key=dict(reading.key),
            state=reading.state,
            value=reading.value,
            changed=reading.content != before.content if is_known else None,
            reason=reading.reason,
            unknown=version.unknown,
        )

    def _origin(self, commit: LogEntry) -> Origin:
        """Return what made a commit; of a merge that took a snapshot as it is, what made the snapshot."""
        origin = read_origin(commit.message)
        if origin != Origin() or len(commit.parents) != 2 or not self._clone.has_commit(commit.parents[1]):
            return origin
        if self._clone.tree(commit.commit) != self._clone.tree(commit.parents[1]):
            return origin
        return read_origin(self._clone.log(commit.parents[1], 1)[0][0].message)

    def check_found(self, rows: list[ValueVersion]) -> None:
        """Raise if there is no value, unless the rows tell why: the file was removed, or did not change."""
        query, states = self._query, {row.state for row in rows}
        versions = "No version"
        if len(rows) == query.limit:
            versions = f"None of the {len(rows)} newest versions"
        elif query.since or query.until:
            versions = "No version in the period"
        if not self._has_file:
            near = close_names(query.file, sorted(self._clone.list_paths(self._tip)))
            hint = f"Did you mean {' or '.join(near)}?" if near else "List its files: maoctl dataset files"
            raise NotFound(
                f"No commit of the branch has a file {query.file!r}.", code="path-not-found", next=hint
            )
        if "no-field" in states:
            raise NotFound(
                f"{versions} of {query.file!r} has a field {query.field!r} in the record {query.key!r}.",
                code="field-not-found",
                next=self._reader.hint or "List the fields: maoctl vote schema",
            )
        if "no-record" in states:
            key = self._reader.key_words
            raise NotFound(
                f"{versions} of {query.file!r} has a record {query.key!r}; the key is {key}.",
                code="record-not-found",
                next=self._reader.hint
                or "Name other key columns with --by, or show the file: maoctl dataset cat",
            )
        unread = next((row for row in rows if row.state == "unreadable"), None)
        if unread is not None and unread.key:
            raise InvalidInput(
                f"{query.key!r} is not one record of {query.file!r}: {unread.reason}.",
                code="record-ambiguous",
                next="Name more key columns: --by COLUMN --by COLUMN, with a key such as a,b.",
            )
        if unread is not None:
            raise InvalidInput(
                f"{versions} of {query.file!r} can be read as records; the newest: {unread.reason}.",
                code="not-records",
                next="Show the file: maoctl dataset cat NAME FILE",
            )


def _shorten(reading: Reading) -> Reading:
    """Return a reading with at most `MAX_TEXT` characters of the value, and an ellipsis if it is longer."""
    value = reading.value
    if value is None or len(value) <= MAX_TEXT:
        return reading
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()
    return replace(reading, value=f"{value[:MAX_TEXT]}…", digest=digest)
