"""Voting one ground truth out of several nodes' observations; usable as a library on any git repository."""

from .election import Cell, FileDecision, Tally
from .evidence import Evidence
from .files import decide_file
from .numbers import Decided, decide_numbers, decide_rounds
from .round import NoQuorum, Voted, vote_round

__all__ = [
    "Cell",
    "Decided",
    "Evidence",
    "FileDecision",
    "NoQuorum",
    "Tally",
    "Voted",
    "decide_file",
    "decide_numbers",
    "decide_rounds",
    "vote_round",
]
