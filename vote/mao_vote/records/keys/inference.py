"""Infers which columns identify records: text before numbers, and never what nodes measure.

A candidate must be unique in most versions, and most versions must share at least half of its values with
most others. Of columns with a typical name, half of the versions may do so, if no text is shared as far.
Candidates, in this order:

    columns with a typical name        id, key, name, path … then those that end in one: repo_id, hostName
    times with a typical name          date, time, timestamp …
    other text, from the left
    typical names and times that only a minority of versions share
    integers, from the left
    pairs, then triples of the leftmost columns, those without integers first

Numbers with a fraction or a unit are measurements, and so are integers that change between nodes in records
that otherwise correspond. If the records that a key matches differ in most values of a field, the candidate
with which they have most in common is taken instead (agreement.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from typing import TYPE_CHECKING, Literal

from mao_shared.models.round import Fold
from mao_vote.records.reading.load import NotRecords

from .agreement import Agreement, has_changing_values, measure_agreement
from .candidates import Candidate, ColumnKind, column_kind, has_fraction, list_candidates
from .folding import is_ascii
from .key import Key, describe_fault, lacks_key
from .sharing import Sharing, group_alike, is_majority, measure_sharing

if TYPE_CHECKING:
    from polars import DataFrame

_MAX_CHANGED_INTEGERS, _MAX_CHANGED_TEXTS = 0.0, 0.1  # fraction of records in which a key may change
_RECOGNISED: tuple[tuple[Fold, ...], ...] = (("case",), ("space",), ("case", "space"))
_BARELY = 3  # shared by fewer than two thirds
_MANY_REPEATING = 4  # a quarter or more of the nodes abstain
_ALIKE = "\0alike:"  # `load` lets no NUL through
_HEAD = 10_000  # records of a version by which candidates are compared with the chosen one
_MAX_RIVALS = 5
_MAX_CHANCE = 0.05  # that as many records are unique in columns that do not identify them
_FEW_RECORDS = 3  # in which many columns are unique
_MAX_NAMED_RIVALS = 3
_NEARLY = 350  # thousandths by which the records of another key may have less in common
_TELLING = 950  # thousandths of the values that a measured column must share to be suggested
_MAX_SHOWN = 40  # characters of a name in a message


def vote_key(
    tables: Sequence[DataFrame],
    votes: Sequence[int],
    declared: Sequence[str] = (),
    fold: Sequence[Fold] = (),
) -> tuple[Key, dict[int, str]]:
    """Return a key that is unique in most tables, and the reasons by index of tables in which it is not.

    For an inferred key, most tables must also share at least half of their records with most tables.
    Raises NotRecords if a declared key is not unique in a majority.

    Args:
        votes: one count per table.
        fold: declared differences between keys that do not count. Without it, an inferred key of which
            records differ only in case or space is matched without these.
    """
    alike = group_alike(tables)  # so that no count depends on the order of rows
    versions = _Versions(
        [tables[group[0]] for group in alike],
        [sum(votes[number] for number in group) for group in alike],
        tuple(fold),
    )
    key, faults = versions.vote(tuple(declared or ()))
    return key, {number: fault for group, fault in faults.items() for number in alike[group]}


def choose_key(
    tables: Sequence[DataFrame], declared: Sequence[str] | None = None, fold: Sequence[Fold] = ()
) -> Key:
    """Return a key that is unique in all tables: the declared one, else the first candidate; else position.

    Raises NotRecords if a declared column is missing or the declared key is not unique.
    """
    if declared:
        normal = Key(tuple(declared), "declared", fold=tuple(fold), nfc=True)
        lacking = lacks_key(tables, normal)
        if not lacking:
            return normal
        as_it_is = replace(normal, nfc=False)
        if lacks_key(tables, as_it_is):
            raise NotRecords(describe_fault(tables[lacking[0]], normal))
        return as_it_is
    filled = [table for table in tables if table.height]
    names = filled[0].columns if filled else []
    common = [name for name in names if all(name in table.columns for table in filled)]
    versions = _Versions(filled, [1] * len(filled), tuple(fold))
    for candidate in list_candidates(versions.column_kinds(common)):
        key = Key(candidate.columns, "inferred", fold=tuple(fold), nfc=True)
        if not lacks_key(filled, key):
            return key
    return Key((), "position")


@dataclass(frozen=True, slots=True)
class _Found:
    """A key, the indices of versions that lack it, how far the others share it, and why it may be wrong."""

    candidate: Candidate
    key: Key
    lacking: list[int]
    sharing: Sharing
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class _Versions:
    """Tables with the number of nodes that have each, and what the definition declares not to count."""

    tables: Sequence[DataFrame]
    votes: Sequence[int]
    fold: tuple[Fold, ...]

    def vote(self, declared: tuple[str, ...]) -> tuple[Key, dict[int, str]]:
        """Return what `vote_key` does."""
        if declared:
            return self.declared_key(declared)
        kinds = self.column_kinds()
        candidates = list(list_candidates(kinds))
        for number, candidate in enumerate(candidates):
            found = self.judge(candidate, kinds)
            if found is not None:
                found = self.prefer_agreement(found, candidates[number + 1 :], kinds)
                return self.describe(found, candidates, kinds)
        return Key((), "position", self.why_no_key(kinds)), {}

    def column_kinds(self, names: Sequence[str] | None = None) -> dict[str, ColumnKind]:
        """Return the kind of each of the columns, by default of those that most versions have."""
        if names is None:
            known = dict.fromkeys(name for table in self.tables for name in table.columns)
            names = [
                name
                for name in known
                if is_majority(self.votes, [name in table.columns for table in self.tables])
            ]
        filled = [table for table in self.tables if table.height]
        if not filled:  # the names are all that there is
            return dict.fromkeys(names, "text")
        return {
            name: column_kind([table[name] for table in filled if name in table.columns]) for name in names
        }

    def declared_key(self, columns: tuple[str, ...]) -> tuple[Key, dict[int, str]]:
        """Return the declared key with the faults of versions. Raises NotRecords if most lack it."""
        key, lacking = self._key(columns, "declared")
        if not self._is_in_most(lacking):
            raise NotRecords(f"in most versions {describe_fault(self.tables[lacking[0]], key)}")
        tables, votes = self._without(lacking)
        sharing = measure_sharing([key.texts(table) for table in tables], votes)
        folded, far = self._recognise(key, tables, votes, sharing)
        if far.found > sharing.found:
            key = replace(
                key, unsure=f"the key {', '.join(columns)}: {_alike(tables, key, folded, same=False)}"
            )
        return key, self._faults(lacking, key)

    def _key(
        self, columns: tuple[str, ...], source: Literal["declared", "inferred"]
    ) -> tuple[Key, list[int]]:
        """Return these columns as a key and the indices of the versions that lack it.

        If most versions have records that differ only in Unicode's form, as file systems may, these count.
        """
        key = Key(columns, source, fold=self.fold, nfc=True)
        lacking = lacks_key(self.tables, key)
        if self.fold or self._is_in_most(lacking) or all(is_ascii(table, columns) for table in self.tables):
            return key, lacking
        key = replace(key, nfc=False)
        return key, lacks_key(self.tables, key)

    def _is_in_most(self, lacking: Sequence[int]) -> bool:
        return is_majority(self.votes, [number not in lacking for number in range(len(self.tables))])

    def _without(self, lacking: Sequence[int]) -> tuple[list[DataFrame], list[int]]:
        usable = [number for number in range(len(self.tables)) if number not in lacking]
        return [self.tables[number] for number in usable], [self.votes[number] for number in usable]

    def _faults(self, lacking: Sequence[int], key: Key) -> dict[int, str]:
        return {number: describe_fault(self.tables[number], key) for number in lacking}

    def judge(self, candidate: Candidate, kinds: Mapping[str, ColumnKind]) -> _Found | None:
        """Return a candidate as a key if it is unique and shared in most versions, and no measurement."""
        key, lacking = self._key(candidate.columns, "inferred")
        if not self._is_in_most(lacking):
            return None
        tables, votes = self._without(lacking)
        sharing = measure_sharing([key.texts(table) for table in tables], votes)
        reasons = []
        if any(kinds[name] == "text" for name in key.columns):
            folded, far = self._recognise(key, tables, votes, sharing)
            is_same = far.shared > sharing.shared or (candidate.sparse and far.met > sharing.met)
            if far.found > sharing.found:
                reasons.append(_alike(tables, key, folded, same=is_same))
            if is_same:
                key, sharing = folded, far
        if not _is_shared(candidate, sharing) or self._is_measured(candidate, key, tables, votes, kinds):
            return None
        doubts = self._doubts(candidate, lacking, sharing)
        return _Found(candidate, key, lacking, sharing, [*reasons, *doubts])

    def prefer_agreement(
        self, found: _Found, others: Sequence[Candidate], kinds: Mapping[str, ColumnKind]
    ) -> _Found:
        """Return another candidate if the records that it matches have more in common.

        They are compared only if the records that the found key matches differ in most values of a field. A
        text is preferred to numbers that match as much.
        """
        if len(self.tables) < 2:
            return found
        heads = _Versions([table.head(_HEAD) for table in self.tables], self.votes, self.fold)

        def measure(key: Key, lacking: Sequence[int]) -> Agreement:
            tables, _ = heads._without(lacking)
            return measure_agreement(tables, [key.texts(table) for table in tables], list(kinds))

        best, most = found, measure(found.key, found.lacking)
        if not most.poor:
            return found
        is_number = all(kinds[name] == "integer" for name in found.key.columns)
        measured = [(found, most)]
        for other in others:
            is_known = other.sparse or set(other.columns) >= set(found.key.columns)
            rival = None if is_known or len(measured) > _MAX_RIVALS else heads.judge(other, kinds)
            if rival is None:
                continue
            agreement = measure(rival.key, rival.lacking)
            measured.append((rival, agreement))
            is_text = any(kinds[name] == "text" for name in other.columns)
            if agreement.exceeds(most, or_equals=best is found and is_number and is_text):
                best, most = rival, agreement
        if best is not found:
            best = self.judge(best.candidate, kinds) or found
        near = [
            ", ".join(rival.key.columns)
            for rival, agreement in measured
            if rival.key.columns != best.key.columns
            and most.contradicts(rival.key.columns)
            and not most.exceeds(agreement, by=_NEARLY)
        ]
        reasons = [f"{name} would do as well" for name in near]
        return replace(best, reasons=[*best.reasons, *reasons])

    def _recognise(
        self, key: Key, tables: Sequence[DataFrame], votes: Sequence[int], sharing: Sharing
    ) -> tuple[Key, Sharing]:
        """Return the key without the differences in case or space that keep versions from sharing it, if any.

        It stays unique in all of them. Declared folds are final.
        """
        if self.fold or sharing.is_same:
            return key, sharing

        def far(fold: tuple[Fold, ...]) -> tuple[Key, Sharing]:
            folded = replace(key, fold=fold)
            return folded, measure_sharing([folded.texts(table) for table in tables], votes)

        best = far(_RECOGNISED[-1])[1]
        if best.found <= sharing.found:
            return key, sharing
        for folded, found in map(far, _RECOGNISED):
            if found.found >= best.found and not lacks_key(tables, folded):
                return folded, found
        return key, sharing

    def _is_measured(
        self,
        candidate: Candidate,
        key: Key,
        tables: Sequence[DataFrame],
        votes: Sequence[int],
        kinds: Mapping[str, ColumnKind],
    ) -> bool:
        integers = [name for name in key.columns if kinds[name] == "integer"]
        if any(has_fraction(table[name]) for table in tables if table.height for name in integers):
            return True
        if candidate.trusted:
            return False
        most = _MAX_CHANGED_INTEGERS if candidate.numbers else _MAX_CHANGED_TEXTS
        texts, integers = (
            [name for name, kind in kinds.items() if kind == wanted and name not in key.columns]
            for wanted in ("text", "integer")
        )
        rest = texts or (None if candidate.numbers else integers)
        return has_changing_values(tables, [key.texts(table) for table in tables], votes, most, rest)

    def _doubts(self, candidate: Candidate, lacking: Sequence[int], sharing: Sharing) -> list[str]:
        doubts = []
        if candidate.numbers:
            doubts.append("only with numbers the records can be told apart")
        if candidate.sparse and 2 * sharing.met == sharing.total:
            alone = f"{sharing.total - sharing.met} of {sharing.total} nodes"
            doubts.append(f"at {alone} most of its values are in no other version")
        elif candidate.sparse:
            doubts.append("most of its values are in the versions of a minority")
        elif _BARELY * sharing.shared < sharing.total * (_BARELY - 1):
            doubts.append(f"only {sharing.shared} of {sharing.total} nodes share most of its values")
        repeating = sum(self.votes[number] for number in lacking)
        if _MANY_REPEATING * repeating >= sum(self.votes):
            doubts.append(f"it is not unique at {repeating} of {sum(self.votes)} nodes, which abstain")
        return doubts

    def describe(
        self, found: _Found, candidates: Sequence[Candidate], kinds: Mapping[str, ColumnKind]
    ) -> tuple[Key, dict[int, str]]:
        """Return a key with the reasons why it may be wrong, and the faults of the versions that lack it."""
        names = ", ".join(found.key.columns)
        others = [
            other
            for other in candidates
            if other.group == found.candidate.group and other.columns != found.key.columns
        ]
        rival = self._rival(found, others, kinds)
        doubts = [
            *([f"{rival} would do as well"] if rival else []),
            *self._doubts_of_few(found, others, kinds),
        ]
        reasons = [*found.reasons, *(doubt for doubt in doubts if doubt not in found.reasons)]
        unsure = f"the key {names} was inferred and may be wrong: {'; '.join(reasons)}" if reasons else ""
        if unsure and "declare" not in unsure:
            unsure += f"; declare key: [{names}], or another, to settle it"
        return replace(found.key, unsure=unsure), self._faults(found.lacking, found.key)

    def _doubts_of_few(
        self, found: _Found, others: Sequence[Candidate], kinds: Mapping[str, ColumnKind]
    ) -> list[str]:
        """Say that so few records may be unique by chance, and which columns are as unique."""
        tables, _ = self._without(found.lacking)
        records = max((table.height for table in tables), default=0)
        is_pair = len(found.key.columns) > 1
        if not records or not (
            _is_unique_by_chance(found.key, tables) if is_pair else records <= _FEW_RECORDS
        ):
            return []
        unique = [other for other in others[:_MAX_RIVALS] if not found.candidate.trusted]
        rivals = [", ".join(other.columns) for other in unique if self.judge(other, kinds) is not None]
        also = f"{' or '.join(rivals[:_MAX_NAMED_RIVALS])} would do as well"
        if is_pair:
            by_chance = f"{records} records may be unique in these columns by chance"
            return [by_chance, *([also] if rivals else [])]
        return [f"with so few records {also}"] if rivals else []

    def _rival(self, found: _Found, others: Sequence[Candidate], kinds: Mapping[str, ColumnKind]) -> str:
        """Return the columns of a candidate that is shared as far and matches the records otherwise."""
        if found.sharing.is_same:
            return ""
        tables, votes = self._without(found.lacking)
        heads = _Versions([table.head(_HEAD) for table in tables], votes, self.fold)

        def far(key: Key) -> int:
            return measure_sharing([key.texts(table) for table in heads.tables], votes).found

        own = far(found.key)
        for other in others[:_MAX_RIVALS]:
            rival = heads.judge(other, kinds)
            if rival is None or rival.lacking or rival.sharing.found < own:
                continue
            together = tuple(dict.fromkeys([*found.key.columns, *other.columns]))
            if far(replace(found.key, columns=together, fold=rival.key.fold or found.key.fold)) < own:
                return ", ".join(other.columns)
        return ""

    def why_no_key(self, kinds: Mapping[str, ColumnKind]) -> str:
        """Say why records have no key, and which measured column would tell them apart."""
        why = "no column tells the records apart, so they were matched by their content and order"
        heads = _Versions([table.head(_HEAD) for table in self.tables], self.votes, self.fold)
        measured = [name for name, kind in kinds.items() if kind == "measured"][:_MAX_RIVALS]
        for names in [*((name,) for name in measured), *combinations(measured, 2)]:
            key = Key(names, "inferred", nfc=True)
            tables, votes = heads._without(lacking := lacks_key(heads.tables, key))
            sharing = measure_sharing([key.texts(table) for table in tables], votes)
            if self._is_in_most(lacking) and sharing.found >= _TELLING * sharing.total:
                shown = ", ".join(names)
                does = "does, but looks" if len(names) == 1 else "together do, but look"
                return f"{why}; {shown} {does} measured: declare key: [{shown}] if that is wrong"
        return why


def _is_shared(candidate: Candidate, sharing: Sharing) -> bool:
    """True if enough versions share a candidate's values.

    Of two nodes that see a part of all records, one may have less than half of its own in common with the
    other, so half of the versions are enough for a name that says that it identifies.
    """
    if candidate.sparse and candidate.trusted:
        return 2 * sharing.met >= sharing.total
    reach = sharing.met if candidate.sparse else sharing.shared
    return 2 * reach > sharing.total or not sharing.total


def _is_unique_by_chance(key: Key, tables: Sequence[DataFrame]) -> bool:
    """True if values combined by chance would be as unique, in the version with most records."""
    table = max(tables, key=lambda table: table.height)
    texts = key.texts(table)
    combinations = prod(texts[name].n_unique() for name in key.columns)
    chance = 1.0
    for record in range(table.height):
        chance *= max(combinations - record, 0) / combinations
        if chance < _MAX_CHANCE:
            return False
    return True


def _alike(tables: Sequence[DataFrame], key: Key, folded: Key, *, same: bool) -> str:
    """Say that records differ only in what `folded` folds, with an example if it is near, and what to do."""
    import polars

    heads = [table.head(_HEAD) for table in tables]
    spelled = polars.concat(key.texts(table) for table in heads)
    alike = polars.concat(folded.texts(table) for table in heads)
    alike = alike.rename({name: _ALIKE + name for name in alike.columns})
    both = spelled.hstack(alike).unique(maintain_order=True)
    twice = both.filter(both.select(alike.columns).is_duplicated())
    first = twice.sort([*alike.columns, *spelled.columns]).head(2)
    shown = [
        ", ".join(repr(text[:_MAX_SHOWN]) for text in row)
        for row in first.select(spelled.columns).iter_rows()
    ]
    example = f" ({' and '.join(shown)})" if shown else ""
    what, fold = " and ".join(folded.fold), ", ".join(folded.fold)
    if same:
        return (
            f"names of records differ only in {what}{example} and were matched without it: declare "
            f"fold: [{fold}] or a key to settle it"
        )
    return (
        f"names of some records differ only in {what}{example} and count as different: declare "
        f"fold: [{fold}] if they are the same"
    )
