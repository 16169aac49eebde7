"""YAML and JSON files that a person wrote: errors in one line, no key twice."""

from __future__ import annotations

from typing import Any

import yaml


class DocumentInvalid(ValueError):
    """Says where and what, in one line."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's own loader silently takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:  # more digits or another month than Python can hold
            text = str(node.value)
            shown = text if len(text) < 40 else f"{text[:20]}… with {len(text)} characters"
            raise yaml.MarkedYAMLError(
                problem=f"{shown} is no number or date that can be read", problem_mark=node.start_mark
            ) from error


def read_all(text: str) -> list[Any]:
    """All documents. Raises Unreadable."""
    try:
        return list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DocumentInvalid(where + " ".join(filter(None, (error.context, error.problem)))) from error
    except RecursionError as error:
        raise DocumentInvalid("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise DocumentInvalid(" ".join(str(error).split())) from error


def read_one(text: str) -> Any:
    """The only document; None for an empty text. Raises Unreadable."""
    documents = read_all(text)
    if len(documents) > 1:
        raise DocumentInvalid(f"there are {len(documents)} documents in it, and one is wanted")
    return documents[0] if documents else None
