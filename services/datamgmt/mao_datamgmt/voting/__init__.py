"""Voting one ground truth out of several nodes' observations; usable as a library on any git repository."""

from .files import decide_file
from .model import Cell, FileDecision, Tally
from .numbers import Decided, decide_numbers, decide_rounds

__all__ = ["Cell", "Decided", "FileDecision", "Tally", "decide_file", "decide_numbers", "decide_rounds"]
