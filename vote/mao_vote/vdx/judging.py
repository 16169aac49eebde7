"""The cells of a record file decided as a VDX definition asks: numbers and texts by its voter.

Who differs only in spelling agrees; a number is written as most of those write it who gave it. Where VDX
decides nothing (too few gave a number, texts of equal weight) the cell is left to the vote without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

from mao_shared.models.round import VoteDefinition
from mao_vote.records import COMPUTED, Judge, Said, Verdict

from .standing import NEW, Standing
from .vdx_voter import Voter

T = TypeVar("T")
OBSERVED = "vdx"


def asks_for_vdx(definition: VoteDefinition) -> bool:
    """Whether the definition is more than a plain vote on what most nodes say."""
    plain = ("AGREEMENT", "NONE", "NONE", False)
    return (
        definition.collation,
        definition.exclusion,
        definition.history,
        definition.bootstrapping,
    ) != plain


def judge_of(
    definition: VoteDefinition,
    versions: Sequence[tuple[str, ...]],
    standings: Mapping[str, Standing],
    error: float,
) -> Judge:
    """`versions`: of each version of the file, the nodes that have it; `error`: the file's own tolerance."""
    nodes = sorted(node for each in versions for node in each)
    place = {node: at for at, node in enumerate(nodes)}
    params = definition.params.model_copy(update={"error": error})
    voter = Voter(
        definition.model_copy(update={"params": params}),
        tuple(definition.weights.get(node, 1.0) for node in nodes),
    )
    history = tuple(standings.get(node, NEW) for node in nodes)
    places = [tuple(place[node] for node in each) for each in versions]

    def judge(said: Sequence[Said]) -> Verdict | None:
        votes = sum(each.votes for each in said)
        if 2 * sum(each.votes for each in said if each.number is not None) > votes:
            values = _spread(said, places, [each.number for each in said], len(nodes))
            return _number(said, voter.decide(values, history).output)
        texts = _spread(said, places, [repr(each.candidate) for each in said], len(nodes))
        return _text(said, voter.decide_text(texts, history).output)

    return judge


def _spread(
    said: Sequence[Said], places: Sequence[tuple[int, ...]], values: Sequence[T | None], nodes: int
) -> list[T | None]:
    """A value a node, of those a version each."""
    spread: list[T | None] = [None] * nodes
    for each, value in zip(said, values, strict=True):
        for place in places[each.version]:
            spread[place] = value
    return spread


def _number(said: Sequence[Said], output: float | None) -> Verdict | None:
    if output is None:
        return None
    spellings: Counter[str] = Counter()
    for each in said:
        if each.number == output and each.text is not None:
            spellings[each.text] += each.votes
    if not spellings:
        return Verdict(_computed(said, output), output, COMPUTED)
    best = min(spellings, key=lambda text: (-spellings[text], len(text), text))
    return Verdict(best, output, OBSERVED)


def _computed(said: Sequence[Said], number: float) -> str:
    """With a decimal comma where most have one."""
    votes = sum(each.votes for each in said if each.number is not None)
    commas = sum(each.votes for each in said if each.number is not None and "," in (each.text or ""))
    return repr(number).replace(".", ",") if 2 * commas > votes else repr(number)


def _text(said: Sequence[Said], output: str | None) -> Verdict | None:
    chosen = [each for each in said if repr(each.candidate) == output]
    if not chosen:
        return None
    number = chosen[0].number
    return Verdict(chosen[0].text, None, OBSERVED) if number is None else _number(said, number)
