"""Voting one ground truth out of several nodes' observations; usable as a library on any git repository."""

from .evidence import Evidence
from .round import NoQuorum, Voted, vote_round

__all__ = ["Evidence", "NoQuorum", "Voted", "vote_round"]
