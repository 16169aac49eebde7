"""The only place that knows pygit2: a package of verbs over a `Clone`.

Commits and trees cross this wall as hexadecimal ids, branches as short names. A `Clone` must stay inside
the thread that opened it. Everything here blocks: call it with asyncio.to_thread or an executor.
"""

from .branches import (
    Relation,
    find_branch,
    list_branches,
    move_branch,
    relation,
    settle,
    take_over_remote,
    unpushed,
)
from .checkout import Manner, lay_tree, make_folder
from .clone import (
    TEMPORARY,
    Clone,
    create_bare,
    create_clone,
    discard_clone,
    finish_clone,
    open_clone,
)
from .errors import TROUBLE, MergeConflict, RemoteMoved, branch_busy
from .library import configure
from .merge import base_of, merge_trees, promote, replay
from .names import MAX_DEPTH, passes_for_git
from .read import FileEntry, LogEntry, list_files, list_log, list_paths, parent_of, read_file, resolve
from .remote import RemoteAccess, check_url, default_branch, fetch, push
from .snapshot import Author, Content, commit_tree, find_commit, tree_of, tree_with
from .sweep import lock_age, sweep, sweep_half_written, sweep_locks

__all__ = [
    "MAX_DEPTH",
    "TEMPORARY",
    "TROUBLE",
    "Author",
    "Clone",
    "Content",
    "FileEntry",
    "LogEntry",
    "Manner",
    "MergeConflict",
    "Relation",
    "RemoteAccess",
    "RemoteMoved",
    "base_of",
    "branch_busy",
    "check_url",
    "commit_tree",
    "configure",
    "create_bare",
    "create_clone",
    "default_branch",
    "discard_clone",
    "fetch",
    "find_branch",
    "find_commit",
    "finish_clone",
    "lay_tree",
    "list_branches",
    "list_files",
    "list_log",
    "list_paths",
    "lock_age",
    "make_folder",
    "merge_trees",
    "move_branch",
    "open_clone",
    "parent_of",
    "passes_for_git",
    "promote",
    "push",
    "read_file",
    "relation",
    "replay",
    "resolve",
    "settle",
    "sweep",
    "sweep_half_written",
    "sweep_locks",
    "take_over_remote",
    "tree_of",
    "tree_with",
    "unpushed",
]
