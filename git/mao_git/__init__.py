"""A node's git repositories: the only place that knows pygit2.

`Clone` has all that can be done to a repository; the rest are the types that it takes and returns, a few
functions, and the exceptions (`errors` draws their tree). All that touches a repository blocks.
"""

from .attributes import Texts, check_line, with_paths, without_lines
from .branches import (
    Relation,
    RewoundBranch,
    Unpushed,
    case_variants,
    check_branch_name,
    conflicting_branches,
)
from .checkout import CheckoutOptions, make_folder
from .clone import Clone
from .commits import Author, LogEntry, Sign
from .diff import ChangedFiles, CommitComparison, FileChange, PathVersions, diff_lines
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
    branch_busy,
    disk_full,
    disk_trouble,
    errno_of,
    is_full,
    stable_text,
)
from .lfs import ATTRIBUTES, MARK, LfsPointer, may_be_pointer, parse_pointer
from .maintenance import sweep, sweep_half_written, sweep_locks
from .objects import ContentStream, blob_hash
from .paths import (
    MAX_DEPTH,
    PATH_MAX,
    escaping_links,
    is_git_name,
    leads_out,
    path_fault,
    printable,
    unsafe_name,
)
from .remotes.access import RemoteAccess, key_faults
from .remotes.errors import branch_name_taken
from .remotes.sync import check_url
from .repair.fsck import fsck
from .repair.salvage import Salvaged, salvage
from .repository import configure, init_bare, is_unfinished, libgit2_version, remove_unfinished
from .tree_writer import Content
from .trees import ArchiveEntry, FileEntry, TreeEntry

__all__ = [
    "ATTRIBUTES",
    "MARK",
    "MAX_DEPTH",
    "PATH_MAX",
    "ArchiveEntry",
    "Author",
    "ChangedFiles",
    "CheckoutOptions",
    "Clone",
    "CloneBroken",
    "CommitComparison",
    "Content",
    "ContentMissing",
    "ContentStream",
    "FileChange",
    "FileEntry",
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
    "Salvaged",
    "Sign",
    "StorageError",
    "Texts",
    "TreeEntry",
    "Unpushed",
    "blob_hash",
    "branch_busy",
    "branch_name_taken",
    "case_variants",
    "check_branch_name",
    "check_line",
    "check_url",
    "configure",
    "conflicting_branches",
    "diff_lines",
    "disk_full",
    "disk_trouble",
    "errno_of",
    "escaping_links",
    "fsck",
    "init_bare",
    "is_full",
    "is_git_name",
    "is_unfinished",
    "key_faults",
    "leads_out",
    "libgit2_version",
    "make_folder",
    "may_be_pointer",
    "parse_pointer",
    "path_fault",
    "printable",
    "remove_unfinished",
    "salvage",
    "stable_text",
    "sweep",
    "sweep_half_written",
    "sweep_locks",
    "unsafe_name",
    "with_paths",
    "without_lines",
]
