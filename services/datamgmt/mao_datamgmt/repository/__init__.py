"""The only place that knows pygit2: a package of verbs over a `Clone`.

Commits and trees cross this wall as hexadecimal ids, branches as short names. A `Clone` is for
one thread at a time. Everything here blocks: call it with asyncio.to_thread or an executor.
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
    waiting,
)
from .changed import Changed, changed_files, content_ids, has_commit, head_of
from .checkout import Manner, differences, lay_paths, lay_tree, make_folder
from .clone import (
    TEMPORARY,
    Clone,
    create_bare,
    create_clone,
    discard_clone,
    finish_clone,
    open_clone,
)
from .commits import Sign
from .content import Opened
from .errors import TROUBLE, MergeConflict, RemoteMoved, branch_busy
from .known import begin_known, contains, find_known, is_rewritten, move_remote, note_known, rescue
from .lfs import (
    ATTRIBUTES,
    POINTER_MAX,
    ContentMissing,
    Pointer,
    bring_content,
    content_missing,
    declare,
    lfs_above,
)
from .lfs import parse as parse_pointer
from .lfs_attributes import with_paths
from .library import configure, version
from .looking import Delta, Member, diff_lines, kind_at, list_deltas, list_members, open_id
from .merge import base_of, join, merge_trees, promote, replay
from .names import MAX_DEPTH, leads_out, passes_for_git
from .objects import require_whole
from .read import (
    FileEntry,
    LogEntry,
    content_id,
    list_files,
    list_log,
    list_paths,
    open_file,
    parent_of,
    read_file,
    resolve,
    text_at,
    tree_uses_lfs,
)
from .remote import check_url, default_branch, fetch, look_at, push
from .remote_access import RemoteAccess
from .snapshot import Author, Content, commit_tree, find_commit, has, tree_of, tree_with
from .sweep import lock_age, sweep, sweep_half_written, sweep_locks
from .upkeep import needs_packing, pack_objects

__all__ = [
    "ATTRIBUTES",
    "MAX_DEPTH",
    "POINTER_MAX",
    "TEMPORARY",
    "TROUBLE",
    "Author",
    "Changed",
    "Clone",
    "Content",
    "ContentMissing",
    "Delta",
    "FileEntry",
    "LogEntry",
    "Manner",
    "Member",
    "MergeConflict",
    "Opened",
    "Pointer",
    "Relation",
    "RemoteAccess",
    "RemoteMoved",
    "Sign",
    "base_of",
    "begin_known",
    "branch_busy",
    "bring_content",
    "changed_files",
    "check_url",
    "commit_tree",
    "configure",
    "contains",
    "content_id",
    "content_ids",
    "content_missing",
    "create_bare",
    "create_clone",
    "declare",
    "default_branch",
    "diff_lines",
    "differences",
    "discard_clone",
    "fetch",
    "find_branch",
    "find_commit",
    "find_known",
    "finish_clone",
    "has",
    "has_commit",
    "head_of",
    "is_rewritten",
    "join",
    "kind_at",
    "lay_paths",
    "lay_tree",
    "leads_out",
    "lfs_above",
    "list_branches",
    "list_deltas",
    "list_files",
    "list_log",
    "list_members",
    "list_paths",
    "lock_age",
    "look_at",
    "make_folder",
    "merge_trees",
    "move_branch",
    "move_remote",
    "needs_packing",
    "note_known",
    "open_clone",
    "open_file",
    "open_id",
    "pack_objects",
    "parent_of",
    "parse_pointer",
    "passes_for_git",
    "promote",
    "push",
    "read_file",
    "relation",
    "replay",
    "require_whole",
    "rescue",
    "resolve",
    "settle",
    "sweep",
    "sweep_half_written",
    "sweep_locks",
    "take_over_remote",
    "text_at",
    "tree_of",
    "tree_uses_lfs",
    "tree_with",
    "unpushed",
    "version",
    "waiting",
    "with_paths",
]
