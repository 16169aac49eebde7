"""The voting rules of VDX (Voting Definition Specification, EcePanos/vdx), for plain numbers and texts.

voter = Voter(VoteDefinition(history="HYBRID", collation="MEAN_NEAREST_NEIGHBOR"))
outcome = voter.decide([18.45, 18.31, 17.33], history)   # history: () at first, then outcome.history
"""

from .columns import CellOutcome, vote_column, vote_text_column
from .standing import NEW, History, Standing
from .voter import Outcome, Voter

__all__ = ["NEW", "CellOutcome", "History", "Outcome", "Standing", "Voter", "vote_column", "vote_text_column"]
