"""The beginning of a file to look at: the first records of a table, an image, or text. Blocking.

Files may contain anything and have any size. Only their beginning is read, and no content is fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import mao_git
from mao_datamgmt.context import Context
from mao_git import Clone, ContentMissing, ContentStream
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.dataset import FilePreview
from mao_vote import records
from mao_vote.records import NotRecords, RecordFormat

MAX_READ_BYTES = 1 << 20  # of a table, from its beginning
MAX_IMAGE_BYTES = 8 << 20
MAX_TEXT_BYTES = 16 << 10
MAX_COLUMNS = 50
MAX_CELL = 200  # characters of a cell; longer ones are truncated
_SNIFFED_BYTES = 4096
_SIGNATURES = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    # without a document type of its own, whose entities may grow without limit
    (
        "image/svg+xml",
        re.compile(
            rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*|<!DOCTYPE[^>\[]*>\s*)*<svg[\s>]",
            re.DOTALL,
        ),
    ),
)
"""The kinds of images that are shown, each with how its content begins."""


def image_type(beginning: bytes) -> str | None:
    """Return the media type of an image by its content, None for what is not shown as an image."""
    return next((media for media, begins in _SIGNATURES if begins.match(beginning)), None)


@dataclass(frozen=True)
class Image:
    """An image to be sent: its media type by content, and the content."""

    media_type: str
    content: bytes


def open_image(context: Context, name: str, ref: str | None, path: str) -> Image:
    """Read an image. Raises NotFound, and InvalidInput for what is no image or too large to show."""
    clone = Clone.open(context.data.clone(name))
    commit = clone.resolve(ref or GROUND_TRUTH)
    try:
        stream = clone.open_file(commit, path)
    except ContentMissing as missing:
        raise _not_here(name, path) from missing
    download = f"Download it: maoctl dataset download {name} PATH --ref {commit[:10]}"
    if stream.size > MAX_IMAGE_BYTES:
        raise InvalidInput(
            f"{path!r} is larger than {MAX_IMAGE_BYTES >> 20} MiB.", code="file-too-large", next=download
        )
    content = b"".join(stream.pieces)
    media_type = image_type(content[:_SNIFFED_BYTES])
    if media_type is None:
        raise InvalidInput(
            f"{path!r} is no image that is shown: PNG, JPEG, GIF, WebP or SVG.",
            code="not-an-image",
            next=download,
        )
    return Image(media_type, content)


def _not_here(name: str, path: str) -> NotFound:
    return NotFound(
        f"The content of {path!r} is in Git LFS and not on this node.",
        code="lfs-content-missing",
        next=f"Download it, which fetches it: maoctl dataset download {name} PATH",
    )


def preview(context: Context, name: str, ref: str | None, path: str, offset: int, limit: int) -> FilePreview:
    """Return the beginning of a file: at most `limit` records after the first `offset`, or its first text.

    Raises NotFound, and InvalidInput for a folder.
    """
    clone = Clone.open(context.data.clone(name))
    commit = clone.resolve(ref or GROUND_TRUTH)
    try:
        stream = clone.open_file(commit, path)
    except ContentMissing:
        pointer = mao_git.lfs.parse_pointer(clone.small_blob(clone.blob_id(commit, path)))
        size = 0 if pointer is None else pointer.size
        note = "its content is in Git LFS and not on this node; a download fetches it"
        return FilePreview(commit=commit, path=path, size=size, kind="none", note=note)
    shown = FilePreview(commit=commit, path=path, size=stream.size, kind="none")
    file_format = records.record_format(path)
    content = read_beginning(stream, MAX_READ_BYTES)
    shown.media_type = image_type(content[:_SNIFFED_BYTES])
    if shown.media_type is not None:
        shown.kind = "image"
        if stream.size > MAX_IMAGE_BYTES:
            shown.kind, shown.note = "none", f"it is larger than {MAX_IMAGE_BYTES >> 20} MiB"
        return shown
    if file_format is not None:
        try:
            _show_table(shown, content, file_format, offset, limit)
            return shown
        except NotRecords as error:
            shown.note = f"not shown as a table: {error}"
    _show_text(shown, content)
    return shown


def read_beginning(stream: ContentStream, size: int) -> bytes:
    """Read at most the first `size` bytes of a stream."""
    read = bytearray()
    for piece in stream.pieces:
        read += piece[: size - len(read)]
        if len(read) >= size:
            break
    return bytes(read)


def _show_table(
    shown: FilePreview, content: bytes, file_format: RecordFormat, offset: int, limit: int
) -> None:
    """Fill in records. Raises NotRecords."""
    is_whole = len(content) == shown.size
    if not is_whole:
        if file_format is RecordFormat.JSON:
            raise NotRecords(f"JSON of more than {MAX_READ_BYTES >> 20} MiB has to be read as a whole")
        content = whole_records(content, file_format)
        shown.note = f"only the first {MAX_READ_BYTES >> 20} MiB are read"
    table = records.load(content, file_format)
    if is_whole and table.height:
        key = records.choose_key([table])
        shown.key = list(key.columns)
    columns = table.columns[:MAX_COLUMNS]
    if len(table.columns) > MAX_COLUMNS:
        more = f"{MAX_COLUMNS} of {len(table.columns)} columns are shown"
        shown.note = f"{shown.note}; {more}" if shown.note else more
    shown.kind, shown.offset = "table", offset
    shown.columns = [_cut(column) or "" for column in columns]
    shown.rows = [[_cut(cell) for cell in row] for row in table.select(columns).slice(offset, limit).rows()]
    shown.total = table.height if is_whole else None
    shown.more = offset + len(shown.rows) < table.height


def whole_records(content: bytes, file_format: RecordFormat) -> bytes:
    """Return the beginning of a table without the record in which it was cut off.

    A line ends a record unless it is inside of quotes. Raises NotRecords if no record is whole.
    """
    end, at, quotes = 0, 0, 0
    for line in content.splitlines(keepends=True):
        at += len(line)
        quotes += line.count(b'"') if file_format.tabular else 0
        if line.endswith(b"\n") and quotes % 2 == 0:
            end = at
    if not end:
        raise NotRecords(f"its first record is longer than {MAX_READ_BYTES >> 20} MiB")
    return content[:end]


def _show_text(shown: FilePreview, content: bytes) -> None:
    beginning = content[:MAX_TEXT_BYTES]
    if b"\0" in beginning:
        return
    text = beginning.decode("utf-8-sig", errors="replace")
    is_cut = len(beginning) < shown.size
    if text.rstrip("\ufffd").count("\ufffd") or (text.endswith("\ufffd") and not is_cut):
        return
    shown.kind, shown.text, shown.more = "text", text.rstrip("\ufffd"), is_cut


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_CELL else text[:MAX_CELL] + "…"
