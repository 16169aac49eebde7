"""A contested cell: every node's value against the one that was taken, why it was taken, and a picture.

Pure.
"""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mao_gateway.pages.formats import plural
from mao_gateway.pages.plots import ticks
from mao_shared.models.evidence import ContestedCell, Evidence, Explanation, FieldEvidence
from mao_shared.text import harmless_line

MAX_TEXT = 200  # characters of a value in a table
_NUMBERS = ("integer", "number")


def typed_key(key: Sequence[str]) -> str:
    """Return a record's key as the API takes it."""
    return key[0] if len(key) == 1 else json.dumps(list(key), ensure_ascii=False) if key else ""


def shown_key(key: Sequence[str]) -> str:
    return ", ".join(key) if key else "the whole file"


def short_value(value: str | None, absent: str = "no such field") -> str:
    if value is None:
        return absent
    return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"


@dataclass(frozen=True, slots=True)
class CellRow:
    """A contested cell in the list of a round."""

    file: str
    key: str
    typed_key: str
    field: str
    chosen: str
    why: str
    undecided: bool
    differed: str


def cell_row(cell: ContestedCell) -> CellRow:
    others = [node for node, value in sorted(cell.values.items()) if value != cell.chosen]
    differed = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
    undecided = cell.why in ("undecided", "tie") and cell.chosen is None
    return CellRow(
        cell.file,
        shown_key(cell.key),
        typed_key(cell.key),
        cell.field,
        short_value(cell.chosen, "nothing"),
        cell.why,
        undecided,
        differed,
    )


@dataclass(frozen=True, slots=True)
class NodeValue:
    """What a node says. `state`: chosen, agrees, differs or silent; `against`: in words."""

    node: str
    value: str
    state: str
    against: str
    commit: str | None


@dataclass(frozen=True, slots=True)
class Why:
    """A statement about the decision. `main`: it decided; the others say how values were compared."""

    name: str
    text: str
    main: bool = False


@dataclass(frozen=True, slots=True)
class CellView:
    """A cell as it is shown; `picture` None unless the values are numbers."""

    title: str
    taken: str
    because: str
    rows: Sequence[NodeValue]
    why: Sequence[Why]
    picture: Markup | None
    has_band: bool
    line: str


def view_cell(dataset: str, found: Explanation, evidence: Evidence) -> CellView:
    """Return how a cell is shown. `evidence`: of the round, for the nodes' commits."""
    band = _band(found)
    rows = [
        _node_value(found, node, value, band, evidence.commits.get(node))
        for node, value in sorted(found.values.items())
    ]
    rows += [
        NodeValue(node, "", "silent", why, evidence.commits.get(node))
        for node, why in sorted(found.silent.items())
        if node not in found.values
    ]
    asked = [found.file, typed_key(found.key), found.field]
    order = ("chosen", "agrees", "differs", "silent")
    rows.sort(key=lambda row: order.index(row.state))
    return CellView(
        title=", ".join(filter(None, (found.file, shown_key(found.key), found.field))),
        taken=short_value(found.chosen, "nothing"),
        because=found.words,
        rows=rows,
        why=_why(found),
        picture=_picture(found, band),
        has_band=band is not None,
        line=f"maoctl vote show {shlex.join([dataset, found.round])} --cell {shlex.join(asked)}",
    )


def number_of(text: str | None) -> float | None:
    """Return the finite number that a text is, or None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _band(found: Explanation) -> tuple[float, float] | None:
    """Return the numbers that agree with the chosen one; None if it is no number or must be the same."""
    compared, chosen = found.compared, number_of(found.chosen)
    if chosen is None or compared is None or compared.kind not in _NUMBERS:
        return None
    if not compared.tolerance and not compared.error:
        return None
    smaller = max(compared.tolerance, compared.error * abs(chosen))
    larger = max(compared.tolerance, abs(chosen) * compared.error / max(1e-9, 1 - compared.error))
    return (chosen - smaller, chosen + larger) if chosen >= 0 else (chosen - larger, chosen + smaller)


def _node_value(
    found: Explanation, node: str, value: str | None, band: tuple[float, float] | None, commit: str | None
) -> NodeValue:
    shown = short_value(value)
    if value == found.chosen and value is not None:
        return NodeValue(node, shown, "chosen", "chosen", commit)
    mine, chosen = number_of(value), number_of(found.chosen)
    if mine is None or chosen is None:
        return NodeValue(node, shown, "differs", "differs" if value is not None else "has none", commit)
    change = f"{(mine - chosen) / abs(chosen):+.1%}" if chosen else f"{mine - chosen:+.4g}"
    change = change.replace("%", " %").replace("-", "\u2212")
    agrees = band is not None and band[0] <= mine <= band[1]
    return NodeValue(
        node, shown, "agrees" if agrees else "differs", f"{change}, agrees" if agrees else change, commit
    )


def _why(found: Explanation) -> list[Why]:
    said = Counter(short_value(value) for value in found.values.values() if value is not None)
    counts = ", ".join(
        f"{value} by {count}"
        for value, count in sorted(said.items(), key=lambda pair: (-pair[1], pair[0]))[:5]
    )
    more = f" and {len(said) - 5} other values" if len(said) > 5 else ""
    why = [Why(found.why, found.words, main=True)]
    if counts:
        why.append(Why("said", f"{counts}{more}, of {plural(len(found.values), 'node')} with this record"))
    if found.observed is not None:
        why.append(Why("observed", f"by {found.observed} of {plural(len(found.values), 'node')}"))
    if found.compared is not None:
        why.append(Why("compared", comparison(found.compared)))
    for group in found.groups:
        reason = "as the definition says" if group.declared else "since they err alike"
        why.append(Why("one voice", f"{', '.join(group.nodes)} count once together, {reason}"))
    return why


def comparison(compared: FieldEvidence) -> str:
    """Return in words how the values of a field are compared."""
    limits = [f"{compared.tolerance:.4g}"] if compared.tolerance else []
    limits += [f"{100 * compared.error:.3g} %"] if compared.error else []
    noise = {"assumed": "assumed", "declared": "declared", "estimated": "estimated from the field's noise"}
    text = f"as {compared.kind}, {compared.source}"
    if limits:
        text += f"; values agree that differ by at most {' or '.join(limits)}"
        text += f" ({noise[compared.noise]})" if compared.noise in noise else ""
    if compared.measured:
        text += "; each node measures its own value"
    return text + (f"; unsure: {compared.unsure}" if compared.unsure else "")


def _picture(found: Explanation, band: tuple[float, float] | None) -> Markup | None:
    """Return the nodes' numbers on a line; None unless there are two different ones."""
    values = [
        (node, value) for node, text in sorted(found.values.items()) if (value := number_of(text)) is not None
    ]
    if len({value for _, value in values}) < 2:
        return None
    low, high = min(value for _, value in values), max(value for _, value in values)
    if not 1e-290 < high - low < 1e290:  # no scale can be drawn
        return None
    grid = ticks(low, high)
    low, high = grid[0], grid[-1]

    def x(value: float) -> float:
        return round(1000 * (min(max(value, low), high) - low) / (high - low), 1)

    parts = []
    if band is not None:
        left, right = x(band[0]), x(band[1])
        parts.append(
            Markup('<rect class="band2" x="{}" y="10" width="{}" height="38"/>').format(
                left, round(right - left, 1)
            )
        )
    parts.append(Markup('<path class="g-line" d="M0 48H1000"/>'))
    chosen = number_of(found.chosen)
    heights: Counter[float] = Counter()
    for node, value in values:
        kind = "dot-warn" if band is None or not band[0] <= value <= band[1] else "dot-s"
        kind = "dot-ok" if value == chosen else kind
        y = 40 - 12 * min(heights[value], 3)
        heights[value] += 1
        said = harmless_line(f"{node}: {found.values[node]}")
        parts.append(
            Markup('<path class="{}" d="M{} {}h0"><title>{}</title></path>').format(kind, x(value), y, said)
        )
    label = f"The {len(values)} values on a line from {low:.6g} to {high:.6g}; taken is {found.chosen}"
    labels = Markup("").join(Markup("<span>{:.6g}</span>").format(value) for value in grid)
    return Markup(
        '<div><svg class="numline" role="img" aria-label="{}" viewBox="0 0 1000 64" '
        'preserveAspectRatio="none">{}</svg><div class="nl-labels" aria-hidden="true">{}</div></div>'
    ).format(label, Markup("").join(parts), labels)
