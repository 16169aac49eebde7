"""Voting one ground truth out of several nodes' observations; usable as a library on any git repository.

The vote itself, without git: `decide_file`, `decide_numbers`, `decide_rounds`.
A round, from commits to a ground-truth commit with its evidence: `vote_round`.
Decided rounds of a repository: `find_round`, `list_rounds`, `latest_rounds`, `walk_rounds`.
Questions about them: `explain_ground_truth`, `page_of_cells`, `audit_ground_truth`, `find_unattested`,
`rank_nodes`; their answers are models in mao_shared.models.evidence.
What the fields of record files are: `describe_schema`.
What a value was over time: `open_history`.
Without a node: `vote_locally`.

Beside these: mao_vote.records reads record files as tables, mao_vote.vdx has the rules of VDX, and
mao_vote.detector finds anomalous values in a series.
"""

from mao_shared.models.evidence import Evidence, Tally

from .audit import audit_ground_truth, audit_round, find_unattested
from .election import Cell, FileDecision, NumberDecision, decide_numbers, decide_rounds
from .explain import explain_cell, explain_ground_truth, page_of_cells
from .file_vote import decide_file
from .local import LocalVote, branch_commits, ground_truth_tip, open_local, repository_errors, vote_locally
from .outliers import rank_nodes
from .round import NoQuorum, Voted, vote_round
from .round_history import find_round, latest_rounds, list_rounds, newest_definition, walk_rounds
from .schema import describe_schema, find_unmatched, list_record_files
from .value_history import HistoryQuery, open_history

__all__ = [
    "Cell",
    "Evidence",
    "FileDecision",
    "HistoryQuery",
    "LocalVote",
    "NoQuorum",
    "NumberDecision",
    "Tally",
    "Voted",
    "audit_ground_truth",
    "audit_round",
    "branch_commits",
    "decide_file",
    "decide_numbers",
    "decide_rounds",
    "describe_schema",
    "explain_cell",
    "explain_ground_truth",
    "find_round",
    "find_unattested",
    "find_unmatched",
    "ground_truth_tip",
    "latest_rounds",
    "list_record_files",
    "list_rounds",
    "newest_definition",
    "open_history",
    "open_local",
    "page_of_cells",
    "rank_nodes",
    "repository_errors",
    "vote_locally",
    "vote_round",
    "walk_rounds",
]
