"""Groups and commands of the tree: synonyms of verbs, similar names, options that many commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from .arguments import parse_moment
from .exits import CommandError, ExitCode
from .listing import Listing
from .output import Format
from .session import get_session
from .text import close_names

if TYPE_CHECKING:
    from typer._click import Command as AnyCommand
    from typer._click import Context

F = TypeVar("F", bound=Callable[..., None])

SYNONYMS = (("get", "list", "ls"), ("show", "describe"), ("remove", "rm", "delete"))
"""Verbs that mean the same, as users know them from docker, kubectl and gh."""
_HABITS = {"logs": ("run", "logs"), "ps": ("run", "list")}
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


def find_word(word: str, known: Iterable[str], nouns: Iterable[str] = ()) -> str | None:
    """Return which of the known commands a word means: itself, a synonym, or a noun in the plural."""
    names = list(known)
    same = next((verbs for verbs in SYNONYMS if word in verbs), ())
    plural = [noun for noun in nouns if word == f"{noun}s"]
    return next((name for name in (word, *same, *plural) if name in names), None)


class Group(TyperGroup):
    """Group that also knows synonyms of its commands, and suggests only commands that its help shows."""

    def get_command(self, ctx: Context, cmd_name: str) -> AnyCommand | None:  # noqa: ARG002
        name = self.find(cmd_name)
        return None if name is None else self.commands[name]

    def find(self, word: str) -> str | None:
        """Return which command a word means."""
        nouns = [name for name, command in self.commands.items() if isinstance(command, Group)]
        return find_word(word, self.commands, nouns)

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, AnyCommand | None, list[str]]:
        word = args[0]
        name = self.find(word)
        if name is None and not word.startswith("-") and not ctx.resilient_parsing:
            near = self.similar(word)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {word!r}.{hint}")
        resolved, command, rest = super().resolve_command(ctx, args)
        return name or resolved, command, rest

    def similar(self, word: str) -> list[str]:
        """Return the visible commands whose name or synonym is similar to a word."""
        visible = [name for name, command in self.commands.items() if not command.hidden]
        known = [*visible, *(verb for verbs in SYNONYMS for verb in verbs), *(f"{name}s" for name in visible)]
        means = (find_word(near, visible, visible) for near in close_names(word, known))
        return list(dict.fromkeys(name for name in means if name))


class App(typer.Typer):
    """Typer application whose groups print their help without arguments, also for `-h`."""

    def __init__(self, **settings: Any) -> None:
        defaults: dict[str, Any] = {
            "cls": Group,
            "no_args_is_help": True,
            "rich_markup_mode": None,
            "suggest_commands": False,
            "context_settings": HELP_OPTIONS,
        }
        super().__init__(**{**defaults, **settings})

    def command(
        self,
        name: str | None = None,
        *,
        lists: bool = False,
        times: bool = False,
        watched: bool = True,
        **settings: Any,
    ) -> Callable[[F], F]:
        """Register a command. `lists`: it prints a list; `times`: of records that have a time.

        Adds `--wide` to all commands with `--output`, to lists the options of `Listing` and, if they are
        `watched` on a node, `--watch`.
        """
        register = super().command(name, **settings)

        def decorate(function: F) -> F:
            register(share_options(function, lists=lists, times=times, watched=lists and watched))
            return function

        return decorate


_TIME_HELP = "this: a time with a zone, or how long ago, like 12h."
WideOption = Annotated[bool, typer.Option("--wide", help="As -o wide: all columns, uncut.")]
SortOption = Annotated[
    str | None,
    typer.Option(
        "--sort-by",
        metavar="COLUMN",
        help="Sort by a column of -o wide or a field of -o json; -COLUMN reverses.",
        show_default=False,
    ),
]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Then show changes as runs proceed.")]
SinceOption = Annotated[str | None, typer.Option(help=f"Not before {_TIME_HELP}", show_default=False)]
UntilOption = Annotated[str | None, typer.Option(help=f"Not after {_TIME_HELP}", show_default=False)]


def share_options(
    function: Callable[..., None], *, lists: bool, times: bool, watched: bool
) -> Callable[..., None]:
    """Return a command with the shared options; it passes them on as settings of the session."""
    signature = inspect.signature(function, eval_str=True)
    shared: dict[str, tuple[Any, Any]] = {}
    if "output" in signature.parameters:
        shared["wide"] = (WideOption, False)
    if lists:
        shared["sort_by"] = (SortOption, None)
    if watched:
        shared["watch"] = (WatchOption, False)
    if times:
        shared |= {"since": (SinceOption, None), "until": (UntilOption, None)}
    if not shared:
        return function

    @functools.wraps(function)
    def command(**given: Any) -> None:
        values = {name: given.pop(name) for name in shared}
        session = get_session(given["context"])
        if values.get("wide"):
            if given["output"] not in (None, Format.TABLE, Format.WIDE):
                raise typer.BadParameter("--wide and --output cannot be combined")
            given["output"] = Format.WIDE
        session.listing = parse_listing(
            values.get("sort_by"), values.get("since"), values.get("until"), session.now
        )
        if not values.get("watch"):
            function(**given)
            return
        from .follow import watch  # imports the models

        watch(session, lambda: function(**given))

    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *map(_parameter, shared.items())]
    )
    return command


def parse_listing(sort_by: str | None, since: str | None, until: str | None, now: datetime) -> Listing:
    """Return the order and period that these options ask for. Raises BadParameter or CommandError."""
    begin, end = (None if text is None else parse_moment(text, now) for text in (since, until))
    if begin and end and begin > end:
        raise CommandError(ExitCode.USAGE, "--since is later than --until.", "Exchange the two.")
    return Listing(sort_by, begin, end)


def _parameter(item: tuple[str, tuple[Any, Any]]) -> inspect.Parameter:
    name, (annotation, default) = item
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def translate_habits(args: Sequence[str], nouns: Iterable[str]) -> list[str]:
    """Translate what users of kubectl, docker and git type; other command lines are unchanged. Pure.

    `get tools`, `delete tool/x`, `logs RUN`, `ps`, `help tool`.
    """
    if args and args[0] in _HABITS:
        return [*_HABITS[args[0]], *args[1:]]
    if args and args[0] == "help":
        return [*args[1:], "--help"]
    known = list(nouns)
    if len(args) < 2 or not any(args[0] in verbs for verbs in SYNONYMS):
        return list(args)
    noun, slash, _ = args[1].partition("/")
    found = find_word(noun, known, known)
    if found is None:
        return list(args)
    return [found, args[0], *args[1:]] if slash else [found, args[0], *args[2:]]
