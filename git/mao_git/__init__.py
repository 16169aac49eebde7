"""A node's git repositories: the only place that knows pygit2.

`Clone` has all operations on a repository. The other names are the types that it takes and returns, a few
functions, and the exceptions. The modules `errors` (exception tree, full disks), `paths`, `lfs`,
`attributes` and `remotes.access` have functions that need no repository. Every call that touches a
repository is blocking.
"""

from . import attributes, errors, lfs, paths
from .branches import Relation, RewoundBranch, case_variants, check_branch_name, conflicting_branches
from .checkout import CheckoutOptions, make_folder
from .clone import Clone
from .commits import Author, LogEntry, Sign
from .diff import ChangedFiles, FileChange, PathVersions, diff_lines
from .errors import (
    CloneBroken,
    ContentMissing,
    GitError,
    InvalidPath,
    LfsConflict,
    MergeConflict,
    ObjectBroken,
    ObjectMissing,
    RemoteMoved,
    RepositoryError,
    StorageError,
)
from .file_history import FileVersion
from .lfs import LfsPointer
from .maintenance import sweep, sweep_half_written, sweep_locks
from .objects import ContentStream, blob_hash
from .remotes.access import RemoteAccess
from .remotes.errors import branch_name_taken
from .remotes.sync import check_url
from .repair.fsck import fsck
from .repair.salvage import salvage
from .repository import configure, init_bare, is_unfinished, libgit2_version, remove_unfinished
from .tree_writer import Content
from .trees import ArchiveEntry, FileEntry, TreeEntry

__all__ = [
    "ArchiveEntry",
    "Author",
    "ChangedFiles",
    "CheckoutOptions",
    "Clone",
    "CloneBroken",
    "Content",
    "ContentMissing",
    "ContentStream",
    "FileChange",
    "FileEntry",
    "FileVersion",
    "GitError",
    "InvalidPath",
    "LfsConflict",
    "LfsPointer",
    "LogEntry",
    "MergeConflict",
    "ObjectBroken",
    "ObjectMissing",
    "PathVersions",
    "Relation",
    "RemoteAccess",
    "RemoteMoved",
    "RepositoryError",
    "RewoundBranch",
    "Sign",
    "StorageError",
    "TreeEntry",
    "attributes",
    "blob_hash",
    "branch_name_taken",
    "case_variants",
    "check_branch_name",
    "check_url",
    "configure",
    "conflicting_branches",
    "diff_lines",
    "errors",
    "fsck",
    "init_bare",
    "is_unfinished",
    "lfs",
    "libgit2_version",
    "make_folder",
    "paths",
    "remove_unfinished",
    "salvage",
    "sweep",
    "sweep_half_written",
    "sweep_locks",
]
