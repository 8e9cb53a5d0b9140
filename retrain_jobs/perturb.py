"""The same request as a hurried person types it: a slip of the fingers, other casing, other spaces. Pure and seeded."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

SLIP_EVERY = 25
"""Letters for each slip of the fingers; a text has at least one."""

_WORD = re.compile(r"[^\W\d_]{4,}")


def perturb(messages: Sequence[dict[str, str]], *, key: str, seed: int) -> list[dict[str, str]]:
    """The messages with the user's last one perturbed in one of three ways; the same key and seed, the same way."""
    rng = random.Random(f"{seed}/{key}")
    way = rng.choice((slip, recase, _respace))
    found = [dict(message) for message in messages]
    for message in reversed(found):
        if message["role"] == "user":
            message["content"] = way(message["content"], rng)
            break
    return found


def slip(text: str, rng: random.Random) -> str:
    """Two neighbouring letters swapped, one left out or one doubled, inside words of at least four letters."""
    words = list(_WORD.finditer(text))
    letters = sum(len(word[0]) for word in words)
    chosen = rng.sample(words, min(len(words), max(1, letters // SLIP_EVERY)))
    for word in sorted(chosen, key=lambda match: -match.start()):
        place = word.start() + rng.randrange(1, len(word[0]) - 1)
        here, after = text[place], text[place + 1]
        slipped = rng.choice((after + here, after, here + here + after))
        text = text[:place] + slipped + text[place + 2 :]
    return text


def recase(text: str, rng: random.Random) -> str:
    """All in capitals, all in small letters, or Each Word With A Capital."""
    return rng.choice((str.upper, str.lower, str.title))(text)


def _respace(text: str, rng: random.Random) -> str:
    gap = rng.choice(("  ", " \t", "\n"))
    return f" {gap.join(text.split(' '))} "
