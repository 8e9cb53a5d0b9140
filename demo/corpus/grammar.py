"""A pattern language for phrasings: `(a|b)` chooses, `[a|b]` chooses or leaves out, `{slot}` stays."""

from functools import cache
from random import Random

Node = str | tuple[tuple["Node", ...], ...]
"""Literal text, or alternatives of which each is a sequence of nodes."""


@cache
def parse(pattern: str) -> tuple[Node, ...]:
    """Parse a pattern into a sequence of nodes; an unbalanced bracket is a ValueError."""
    nodes, end = _sequence(pattern, 0)
    if end != len(pattern):
        raise ValueError(f"unbalanced bracket at {end} of {pattern!r}")
    return nodes


def expand(pattern: str, rng: Random) -> str:
    """Choose one text of the pattern, with single spaces."""
    return " ".join(_choose(parse(pattern), rng).split())


def _choose(nodes: tuple[Node, ...], rng: Random) -> str:
    return "".join(
        node if isinstance(node, str) else _choose(node[int(rng.random() * len(node))], rng) for node in nodes
    )


def _sequence(pattern: str, at: int) -> tuple[tuple[Node, ...], int]:
    nodes: list[Node] = []
    start = at
    while at < len(pattern) and pattern[at] not in ")]|":
        if pattern[at] in "([":
            nodes.append(pattern[start:at])
            alternatives, at = _alternatives(pattern, at)
            nodes.append(alternatives)
            start = at
        else:
            at += 1
    nodes.append(pattern[start:at])
    return tuple(node for node in nodes if node), at


def _alternatives(pattern: str, at: int) -> tuple[Node, int]:
    opener = pattern[at]
    closer = ")" if opener == "(" else "]"
    found: list[tuple[Node, ...]] = [()] if opener == "[" else []
    while True:
        sequence, at = _sequence(pattern, at + 1)
        found.append(sequence)
        if at >= len(pattern) or pattern[at] not in ("|", closer):
            raise ValueError(f"unbalanced bracket at {at} of {pattern!r}")
        if pattern[at] == closer:
            return tuple(found), at + 1
