"""Version 3 of the voting rules, kept as it was so that rounds decided by it can be audited.

Nothing here is used for new rounds, and nothing here is corrected: a change would make `vote audit` fail on
old rounds. What reads and writes files (mao_vote.records) and VDX is shared with the present rules.
"""

from .file_vote import decide_file

__all__ = ["decide_file"]
