"""Build the documentation site: the pages of docs/, and reference pages generated from the code.

`make docs` calls it. The pages are copied to a folder under var/, with `reference/` beside them, and zensical
makes the site. Links to files outside of docs/ become plain text, since the site has no such pages.
"""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer
from fastapi import FastAPI
from pydantic import AliasChoices
from pydantic_core import PydanticUndefined

from mao_shared.settings import SERVICES, ServiceSettings

REPO = Path(__file__).resolve().parents[1]
SOURCES = ("shared", "git", "vote", "cli", "node", "services")
_LINK = re.compile(r"\[([^\]]+)\]\((\.\.?/[^)#]+)(#[^)]*)?\)")


def commands_page() -> str:
    """Return the reference of maoctl, from its command tree."""
    from maoctl.main import app

    root = typer.main.get_command(app)
    parts = ["# Commands\n\nGenerated from `maoctl --help`. Exit codes: 0 done, 1 failed, 2 wrong usage, "]
    parts.append("3 not found, 4 not allowed, 5 conflict, 6 nothing answers, 7 a run failed, 8 timeout.\n")
    parts += _commands(root, "maoctl", 2)
    return "\n".join(parts)


def _commands(command: Any, path: str, level: int) -> Iterator[str]:
    context = command.make_context(path, [], resilient_parsing=True)
    if not getattr(command, "commands", None):
        yield f"{'#' * min(level, 4)} `{path}`\n\n```text\n{command.get_help(context)}\n```\n"
        return
    if level > 2:
        yield f"{'#' * min(level - 1, 3)} {path}\n\n{(command.help or '').strip()}\n"
    for name, child in command.commands.items():
        if not child.hidden:
            yield from _commands(child, f"{path} {name}", level + 1)


def settings_page() -> str:
    """Return the environment variables of all services; descriptions are the comments in the code."""
    lines = ["# Settings\n\nEnvironment variables, all optional; with compose they go into `.env`.\n"]
    seen: set[str] = set()
    modules = {"all services": "mao_shared.settings"}
    modules |= {name: f"mao_{name}.settings" for name in ("gateway", *SERVICES)}
    for title, module_name in modules.items():
        module = importlib.import_module(module_name)
        kinds = [
            kind
            for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, ServiceSettings) and kind.__module__ == module_name
        ]
        lines += [f"## {title}\n", "| variable | default | meaning |", "|---|---|---|"]
        comments = _field_comments(Path(str(module.__file__)))
        for kind in kinds:
            for name, info in kind.model_fields.items():
                if name not in kind.__annotations__ or name in seen:
                    continue
                if title == "all services":
                    seen.add(name)
                default = "" if info.default in (PydanticUndefined, None, "") else f"`{info.default}`"
                lines.append(f"| {_variables(name, info)} | {default} | {comments.get(name, '')} |")
        lines.append("")
    return "\n".join(lines)


def _variables(name: str, info: Any) -> str:
    alias = info.validation_alias
    names = alias.choices if isinstance(alias, AliasChoices) else [f"MAO_{name.upper()}"]
    return ", ".join(f"`{each}`" for each in names)


def _field_comments(path: Path) -> dict[str, str]:
    """Return the comment at the end of each field's lines."""
    fields = {
        line: node.target.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno
        for line in range(node.lineno, node.end_lineno + 1)
    }
    found: dict[str, list[str]] = defaultdict(list)
    with path.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type == tokenize.COMMENT and token.start[0] in fields:
                found[fields[token.start[0]]].append(token.string.lstrip("# "))
    return {name: " ".join(texts).replace("|", "\\|") for name, texts in found.items()}


def metrics_page() -> str:
    """Return the table of metrics, which a test compares with those that exist."""
    table = re.findall(r"^\|.*\|$", (REPO / "monitoring" / "README.md").read_text(), re.M)
    start = next(index for index, line in enumerate(table) if line.startswith("| metric "))
    return (
        "# Metrics\n\nPrometheus scrapes them at the gateway: `/metrics` and `/services/NAME/metrics`.\n\n"
        + "\n".join(table[start:])
    )


def problems_page() -> str:
    """Return all problem codes in the code, with where they arise."""
    lines = [
        "# Problem codes\n\nErrors of the API are problem documents (RFC 9457) with a stable `code`; "
        "their `next` says what to do.\n",
        "| code | said | in |",
        "|---|---|---|",
    ]
    for code, (detail, modules) in sorted(_problem_codes().items()):
        lines.append(f"| `{code}` | {detail} | {', '.join(f'`{name}`' for name in sorted(modules))} |")
    return "\n".join(lines)


def _problem_codes() -> Mapping[str, tuple[str, set[str]]]:
    """Return code → the text of its first error, with … for what is filled in, and the modules."""
    found: dict[str, tuple[str, set[str]]] = {}
    for path in sorted(each for source in SOURCES for each in (REPO / source).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                value = keyword.value
                if (
                    keyword.arg != "code"
                    or not isinstance(value, ast.Constant)
                    or not isinstance(value.value, str)
                ):
                    continue
                detail, modules = found.setdefault(value.value, (_text(node), set()))
                modules.add(path.stem)
                found[value.value] = (detail or _text(node), modules)
    return {code: entry for code, entry in found.items() if re.fullmatch(r"[a-z][a-z-]+", code)}


def _text(call: ast.Call) -> str:
    """Return the text of an error's first argument."""
    candidates = [*call.args[:1], *(word.value for word in call.keywords if word.arg == "detail")]
    for node in candidates:
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        if all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
            return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return ""


def api_page() -> str:
    """Return all operations of the API, from the services' own documents."""
    lines = [
        "# API\n\nThe node serves it with examples to try at `/docs`, and the document at `/openapi.json`.\n"
    ]
    for service in ("gateway", *SERVICES):
        module = importlib.import_module(f"mao_{service}.routes")
        routes = getattr(module, "ROUTES" if service != "gateway" else "SERVICE_ROUTES")
        lines += [f"## {service}\n", "| call | what |", "|---|---|"]
        document = FastAPI(routes=routes).openapi()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                lines.append(f"| `{method.upper()} {path}` | {operation.get('summary', '')} |")
        lines.append("")
    return "\n".join(lines)


PAGES = {
    "commands": commands_page,
    "settings": settings_page,
    "metrics": metrics_page,
    "problems": problems_page,
    "api": api_page,
}


def build(folder: Path) -> Path:
    """Build the site below `folder`; return its folder. Raises CalledProcessError."""
    source = folder / "docs"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(REPO / "docs", source)
    (source / "reference").mkdir()
    for name, make in PAGES.items():
        (source / "reference" / f"{name}.md").write_text(make() + "\n")
    for page in source.rglob("*.md"):
        page.write_text(_LINK.sub(partial(_kept_link, page, source), page.read_text()))
    shutil.copy(REPO / "zensical.toml", folder)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, check=True)
    return folder / "site"


def _kept_link(page: Path, source: Path, match: re.Match[str]) -> str:
    target = (page.parent / match[2]).resolve()
    return match[0] if target.is_relative_to(source.resolve()) and target.exists() else match[1]


if __name__ == "__main__":
    print(build(Path(sys.argv[1]).resolve()))  # noqa: T201
