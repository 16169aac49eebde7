"""Contexts: the nodes that a user works with, by name, in a file of the user's own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .exits import CommandError, ExitCode
from .text import close_names

CONFIG = "MAOCTL_CONFIG"  # the file, in place of the one in the user's configuration directory
CONTEXT = "MAO_CONTEXT"  # the name of the context to use
_FOR_OTHERS = 0o077


@dataclass(frozen=True)
class Context:
    """A node: the gateway's address, and the token that is sent to it, if any."""

    url: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Contexts:
    """The contexts by name. `current`: in use unless the command line or environment names another."""

    by_name: Mapping[str, Context] = field(default_factory=dict)
    current: str | None = None

    def get(self, name: str) -> Context:
        """Return a context. Raises CommandError that suggests similar names."""
        found = self.by_name.get(name)
        if found is None:
            near = close_names(name, self.by_name)
            hint = f"Did you mean {' or '.join(near)}?" if near else "See them with 'maoctl context list'."
            raise CommandError(ExitCode.NOT_FOUND, f"There is no context {name!r}.", hint)
        return found

    def with_context(self, name: str, context: Context) -> Contexts:
        """Return these with a context added or replaced; the first one becomes the current one."""
        return Contexts({**self.by_name, name: context}, self.current or name)

    def without(self, name: str) -> Contexts:
        self.get(name)
        left = {known: context for known, context in self.by_name.items() if known != name}
        return Contexts(left, None if self.current == name else self.current)

    def using(self, name: str) -> Contexts:
        self.get(name)
        return replace(self, current=name)


def context_file(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the file; None if the environment names neither it nor a home directory."""
    if chosen := environ.get(CONFIG):
        return Path(chosen).expanduser()
    if base := environ.get("XDG_CONFIG_HOME"):
        return Path(base, "maoctl", "contexts.json")
    home = environ.get("HOME")
    return Path(home, ".config", "maoctl", "contexts.json") if home else None


def read_contexts(environ: Mapping[str, str]) -> Contexts:
    """Return the contexts of the user; none if there is no file.

    Raises CommandError if the file cannot be read, or has tokens that other users can read.
    """
    path = context_file(environ)
    if path is None:
        return Contexts()
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            contexts = _parse(json.load(file))
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        detail = f"The contexts in {path} cannot be read: {error}"
        raise CommandError(ExitCode.USAGE, detail, "Correct the file, or remove it.") from error
    if mode & _FOR_OTHERS and any(context.token for context in contexts.by_name.values()):
        raise CommandError(
            ExitCode.AUTH, f"Other users can read the tokens in {path}.", f"Protect them: chmod 600 {path}"
        )
    return contexts


def _parse(document: Any) -> Contexts:
    by_name = {
        str(name): Context(str(fields["url"]), fields.get("token"))
        for name, fields in document.get("contexts", {}).items()
    }
    return Contexts(by_name, document.get("current"))


def write_contexts(environ: Mapping[str, str], contexts: Contexts) -> Path:
    """Write the contexts, readable by the user only, and return the path. Raises CommandError."""
    import tempfile  # rarely needed, and start-up time counts

    path = context_file(environ)
    if path is None:
        raise CommandError(
            ExitCode.USAGE, "There is no home directory to keep contexts in.", f"Set HOME, or {CONFIG}."
        )
    entries = {
        name: {"url": context.url} | ({"token": context.token} if context.token else {})
        for name, context in contexts.by_name.items()
    }
    text = json.dumps({"current": contexts.current, "contexts": entries}, indent=2) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A temporary file is readable by its owner only, and so is what it replaces.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED, f"{path} cannot be written: {error.strerror}.", f"Name another file in {CONFIG}."
        ) from error
    return path
