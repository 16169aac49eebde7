"""Voting one ground truth out of several nodes' observations; usable as a library on any git repository."""

from mao_shared.models.evidence import Evidence, Tally

from .election import Cell, FileDecision, NumberDecision, decide_numbers, decide_rounds
from .file_vote import decide_file
from .round import NoQuorum, Voted, vote_round

__all__ = [
    "Cell",
    "Evidence",
    "FileDecision",
    "NoQuorum",
    "NumberDecision",
    "Tally",
    "Voted",
    "decide_file",
    "decide_numbers",
    "decide_rounds",
    "vote_round",
]
