"""Progress of a pull, from lines as Docker Engine sends them."""

from __future__ import annotations

from typing import Any

from mao_runner.drivers.pull_progress import PullProgress


def downloading(layer: str, current: int, total: int | None) -> dict[str, Any]:
    detail = {"current": current} | ({} if total is None else {"total": total})
    return {"id": layer, "status": "Downloading", "progressDetail": detail, "progress": "[=>  ]"}


def test_pull_progress_sums_the_layers() -> None:
    progress = PullProgress()
    lines: list[tuple[dict[str, Any], tuple[int, int]]] = [
        ({"status": "Pulling from library/busybox", "id": "1.36"}, (0, 0)),
        ({"status": "Pulling fs layer", "progressDetail": {}, "id": "a"}, (0, 0)),
        ({"status": "Already exists", "progressDetail": {}, "id": "z"}, (0, 0)),
        (downloading("a", 10, 100), (10, 100)),
        (downloading("b", 50, 300), (60, 400)),
        (downloading("a", 90, 100), (140, 400)),
        ({"status": "Download complete", "progressDetail": {}, "id": "a"}, (150, 400)),
        ({"status": "Extracting", "progressDetail": {"current": 5, "total": 100}, "id": "a"}, (150, 400)),
        (downloading("b", 300, 300), (400, 400)),
        ({"status": "Pull complete", "progressDetail": {}, "id": "b"}, (400, 400)),
        ({"status": "Digest: sha256:x"}, (400, 400)),
    ]
    assert [progress.note(line) for line, _ in lines] == [expected for _, expected in lines]


def test_pull_progress_without_a_total_is_never_more_than_all() -> None:
    progress = PullProgress()
    assert progress.note(downloading("a", 10, None)) == (10, 10)
    assert progress.note(downloading("a", 30, 20)) == (30, 30)
    assert progress.note({"id": "a", "status": "Downloading", "progressDetail": None}) == (30, 30)
