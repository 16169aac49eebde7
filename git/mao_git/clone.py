"""`Clone`, a repository of this node: the table of all its methods, which are defined in the other modules.

Commits and trees are hexadecimal ids, branches short names. All methods block: call them in a thread. A clone
is for one thread at a time. Methods raise a GitError, or a MaoError that a user can act on; never an
exception of pygit2.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from mao_shared.errors import NotFound

from . import (
    attributes,
    branches,
    checkout,
    commits,
    diff,
    file_history,
    lfs,
    maintenance,
    objects,
    paths,
    tree_writer,
    trees,
)
from .errors import ContentMissing, raises_git_errors
from .remotes import git_lfs, sync
from .remotes.access import RemoteAccess
from .repository import Repository

T = TypeVar("T")


@raises_git_errors
class Clone(Repository):
    """A bare clone of a dataset, or any repository of this machine; see `open`, `discover`, `create`."""

    # branches
    tip = branches.find_tip
    list_branches = branches.list_branches
    latest_tip = branches.latest_tip
    unpushed = branches.unpushed
    relation = branches.relation
    contains = branches.contains
    is_checked_out = branches.is_checked_out
    move_branch = branches.move_branch
    reset_to_remote = branches.reset_to_remote

    # what the remote had
    upstream_base = branches.upstream_base
    set_upstream_base = branches.set_upstream_base
    is_rewritten = branches.is_rewritten
    rewound_branches = branches.rewound_branches
    accept_rewound = branches.accept_rewound
    rescue = branches.rescue

    # the remote
    set_remote = branches.set_remote
    fetch = sync.fetch
    push = sync.push
    ls_remote = sync.ls_remote
    default_branch = sync.default_branch
    check_pushable = sync.check_pushable

    # commits
    resolve = commits.resolve
    rev_parse = commits.rev_parse
    has_commit = commits.has_commit
    is_commit = commits.is_commit
    parent = commits.read_parent
    commit_time = commits.commit_time
    log = commits.list_log
    log_since = commits.log_since
    first_parents = commits.first_parents
    find_commit = commits.find_commit
    file_versions = file_history.file_versions
    last_changes = file_history.last_changes
    commit = commits.commit_tree

    # merging
    merge_base = commits.merge_base
    merge_trees = commits.merge_trees
    merge_keeping_ours = commits.merge_keeping_ours
    replay = commits.replay
    promote = commits.promote

    # reading trees
    tree = trees.tree_of
    entry = trees.entry_at
    kind = trees.kind_at
    names_in = trees.names_in
    list_files = trees.list_files
    content_sizes = trees.content_sizes
    count_entries = trees.count_entries
    list_paths = trees.list_paths
    archive_entries = trees.archive_entries
    links = paths.list_links
    top_text = trees.top_text
    open_file = trees.open_file
    read_file = trees.read_file

    # objects
    has_object = trees.has_object
    check_object = objects.check_object
    blob_id = trees.blob_id
    blob_ids = trees.blob_ids
    open_blob = trees.open_blob
    read_blob = trees.read_blob
    small_blob = trees.small_blob
    blob_size = trees.blob_size
    write_blob = tree_writer.write_blob

    # differences
    changed_files = diff.changed_files
    file_changes = diff.file_changes
    differing_paths = checkout.differing_paths
    compare_commits = diff.compare_commits

    # writing trees
    write_tree = tree_writer.write_tree
    write_texts = attributes.write_texts
    place_entries = tree_writer.place_entries
    without_escaping_links = tree_writer.without_escaping_links

    # Git LFS
    uses_lfs = trees.tree_uses_lfs
    lfs_pointers = attributes.lfs_pointers
    lfs_attributes = attributes.lfs_attributes
    lfs_mark = attributes.lfs_mark
    settle_lfs = attributes.settle_lfs
    has_lfs_content = lfs.has_lfs_content
    has_any_lfs_content = lfs.has_any_lfs_content
    content_missing = lfs.content_missing
    fetch_lfs = git_lfs.fetch_lfs

    # files on the disk, and upkeep
    checkout_tree = checkout.checkout_tree
    checkout_paths = checkout.checkout_paths
    needs_packing = maintenance.needs_packing
    pack = maintenance.pack

    def with_lfs_content(self, commit: str, access: RemoteAccess, call: Callable[[], T]) -> T:
        """Make a call that reads files of a commit; if content is missing, fetch it and call again.

        Raises NotFound (`lfs-content-missing`) if the call needs content that the remote lacks.
        """
        try:
            return call()
        except ContentMissing:
            with suppress(NotFound):
                self.fetch_lfs(commit, access)
        try:
            return call()
        except ContentMissing as missing:
            raise self.content_missing(missing) from missing
