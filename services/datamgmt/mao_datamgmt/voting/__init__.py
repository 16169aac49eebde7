"""Voting one ground truth out of several nodes' observations; usable as a library on any git repository."""

from .files import decide_file
from .model import Cell, FileDecision, Tally

__all__ = ["Cell", "FileDecision", "Tally", "decide_file"]
