"""The only place that knows pygit2: a package of verbs over a `Clone`.

Commits and trees cross this wall as hexadecimal ids, branches as short names. A `Clone` must stay inside
the thread that opened it. Everything here blocks: call it with asyncio.to_thread or an executor.
"""

from .branches import Relation, find_branch, list_branches, move_branch, relation, settle
from .checkout import lay_tree
from .clone import TEMPORARY, Clone, create_bare, create_clone, finish_clone, open_clone, set_url
from .errors import MergeConflict, RemoteMoved
from .library import configure
from .merge import base_of, merge_trees, promote, replay
from .read import FileEntry, LogEntry, list_files, list_log, read_file, resolve
from .remote import RemoteAccess, default_branch, fetch, push
from .snapshot import Author, Content, commit_tree, find_commit, tree_of, tree_with, unpublished

__all__ = [
    "TEMPORARY",
    "Author",
    "Clone",
    "Content",
    "FileEntry",
    "LogEntry",
    "MergeConflict",
    "Relation",
    "RemoteAccess",
    "RemoteMoved",
    "base_of",
    "commit_tree",
    "configure",
    "create_bare",
    "create_clone",
    "default_branch",
    "fetch",
    "find_branch",
    "find_commit",
    "finish_clone",
    "lay_tree",
    "list_branches",
    "list_files",
    "list_log",
    "merge_trees",
    "move_branch",
    "open_clone",
    "promote",
    "push",
    "read_file",
    "relation",
    "replay",
    "resolve",
    "set_url",
    "settle",
    "tree_of",
    "tree_with",
    "unpublished",
]
