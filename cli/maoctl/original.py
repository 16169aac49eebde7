"""The command lines of the original's client, said in ours: pure.

Its own verbs and options are taken beside ours, so that notes, scripts and habits go on working. What it did
without asking is done without asking.
"""

from __future__ import annotations

from collections.abc import Sequence

_OPTIONS = {
    ("tool", "get"): ("--name",),
    ("tool", "add"): ("--name", "--author", "--image", "--data_repo", "--code_repo", "--artefact"),
    ("tool", "remove"): ("--name",),
    ("tool", "stop"): ("--id",),
    ("dataset", "get"): ("--name",),
    ("dataset", "add"): ("--name", "--git_url"),
    ("dataset", "remove"): ("--name",),
    ("pipeline", "get"): ("--name",),
    ("pipeline", "run"): ("--name",),
    ("repo", "add"): ("--name",),
}
"""Options of the original that are arguments here, in the order of the arguments."""
_VERBS = {
    ("tool", "list-scheduled"): ("job", "get"),
    ("tool", "stop"): ("job", "remove"),
    ("pipeline", "add"): ("pipeline", "create"),
    ("repo", "add"): ("dataset", "init"),
}
_UNASKED = {("tool", "remove"), ("tool", "stop"), ("dataset", "remove")}


def from_original(args: Sequence[str]) -> list[str]:
    """The command line in our words; one that is in our words already comes back as it is."""
    verb = (args[0], args[1]) if len(args) > 1 else ("", "")
    given, rest = _taken(args[2:], _OPTIONS.get(verb, ()))
    ours = list(_VERBS.get(verb, args[:2]))
    if not given:
        return [*ours, *rest]
    wanted = _OPTIONS[verb]
    last = max(wanted.index(name) for name in given)
    arguments = [given.get(name, "") for name in wanted[: last + 1]]
    unasked = ["--yes"] if verb in _UNASKED and "--yes" not in rest else []
    return [*ours, *rest, *unasked, "--", *arguments]


def _taken(args: Sequence[str], options: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The values of these options, and all else; `--name x` and `--name=x` alike."""
    given: dict[str, str] = {}
    rest: list[str] = []
    waiting = list(args)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return given, [*rest, word, *waiting]
        name, equals, value = word.partition("=")
        if name not in options or not (equals or waiting):
            rest.append(word)
        else:
            given[name] = value if equals else waiting.pop(0)
    return given, rest
