"""Bounds that types alone cannot state: tokens, schemas that the engine compiles, characters that nothing can store."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from service.core.errors import BadRequest
from service.settings import GatewaySettings

MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_NODES = 4096
MAX_SCHEMA_STRING = 8192
MAX_PATTERN = 512


def check_tokens(name: str, value: object, limits: GatewaySettings) -> None:
    if isinstance(value, int) and value > limits.max_tokens:
        raise BadRequest(f"{name}: at most {limits.max_tokens} tokens.", param=name, code="invalid_value")


def check_schema(value: object, param: str) -> None:
    """Bound the depth, size and patterns of what the engine compiles; absent and null hold none."""
    if not value:
        return
    nodes = 0
    todo: list[tuple[object, int, str]] = [(msgspec.to_builtins(value), 0, "")]
    while todo:
        node, depth, key = todo.pop()
        nodes += 1
        if depth > MAX_SCHEMA_DEPTH or nodes > MAX_SCHEMA_NODES:
            raise BadRequest(
                f"{param}: at most {MAX_SCHEMA_DEPTH} levels and {MAX_SCHEMA_NODES} values.", param=param,
                code="invalid_value",
            )  # fmt: skip
        if isinstance(node, Mapping):
            todo.extend((value, depth + 1, name) for name, value in node.items())
        elif isinstance(node, list):
            todo.extend((value, depth + 1, "") for value in node)
        elif isinstance(node, str) and len(node) > (MAX_PATTERN if key == "pattern" else MAX_SCHEMA_STRING):
            raise BadRequest(f"{param}: {key or 'a text'} is too long.", param=param, code="invalid_value")


def refuse_nul(node: object, path: str = "") -> None:
    if isinstance(node, str):
        if "\0" in node:
            raise BadRequest(f"{path}: the NUL character is not accepted.", param=path, code="invalid_value")
    elif isinstance(node, dict):
        for key, value in node.items():
            refuse_nul(key, path)
            refuse_nul(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            refuse_nul(value, f"{path}[{index}]")
