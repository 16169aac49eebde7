"""Keys are built and parsed in one place, and docs/keys.md names every builder."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from mao_shared import keys

DOC = (Path(__file__).parents[2] / "docs" / "keys.md").read_text()
PARSERS = {"last_part", "split_peer", "newest_first", "mirrored_run_id", "split_run_index"}
TEMPLATES = {name: found for name, found in vars(keys).items() if isinstance(found, keys.KeyTemplate)}
FUNCTIONS = {
    name: found for name, found in inspect.getmembers(keys, inspect.isfunction) if not name.startswith("_")
}
BUILDERS = TEMPLATES | FUNCTIONS


def build(name: str) -> str:
    """Call a key builder with each argument's own name as its value."""
    builder = BUILDERS[name]
    known = TEMPLATES.get(name)
    arguments = inspect.signature(builder).parameters if known is None else known.fields
    return str(builder(*(f"<{argument}>" for argument in arguments)))


@pytest.mark.parametrize("name", BUILDERS)
def test_keys_page_names_every_builder(name: str) -> None:
    assert f"`{name}`" in DOC


@pytest.mark.parametrize("name", sorted(BUILDERS.keys() - PARSERS))
def test_keys_page_shows_where_every_key_lies(name: str) -> None:
    key = re.sub("<kind>", "tools", build(name)).removesuffix("/")
    prefix = re.match(r"/mao(?:-authority)?/(?:nodes/<node>/)?[a-z]+(?:/[a-z]+)?", key)
    assert prefix is not None
    assert f"`{prefix[0]}" in DOC


@pytest.mark.parametrize("name", [name for name in BUILDERS if f"{name}s_prefix" in BUILDERS])
def test_keys_key_lies_under_its_prefix_and_ends_in_its_name(name: str) -> None:
    key, prefix = build(name), build(f"{name}s_prefix")
    assert key.startswith(prefix)
    assert prefix + keys.last_part(key) == key


def test_keys_no_prefix_holds_the_keys_of_another() -> None:
    prefixes = [build(name) for name in BUILDERS if name.endswith("prefix")]
    assert not [(a, b) for a in prefixes for b in prefixes if a != b and a.startswith(b)]


def test_keys_idempotency_key_from_outside_stays_one_part() -> None:
    key = keys.idempotency("node-1", "runs", "../../x/\n")
    assert re.fullmatch(r"/mao/nodes/node-1/idempotency/[0-9a-f]{64}", key)


def test_key_template_refuses_another_number_of_values() -> None:
    assert keys.run("n1", "r{1}") == "/mao/nodes/n1/runs/r{1}"
    for values in ((), ("n1",), ("n1", "r1", "x")):
        with pytest.raises(TypeError):
            keys.run(*values)
