"""How people really type: lost capitals and stops, short forms, slips of the finger; slots stay intact."""

import re
from random import Random

_WORD = re.compile(r"[a-z]{4,}")
_SLOT = re.compile(r"(\{\w+\})")
_SHORT = (
    (re.compile(r"\bplease\b"), "pls"),
    (re.compile(r"\byou\b"), "u"),
    (re.compile(r"\bthanks\b"), "thx"),
    (re.compile(r"\bI want to\b"), "I wanna"),
    (re.compile(r"\bI am\b"), "im"),
)
_NEAR = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo",
    "j": "hk", "k": "jl", "l": "ko", "m": "nj", "n": "bm", "o": "ip", "p": "ol", "q": "wa", "r": "et",
    "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "xs",
}  # fmt: skip


def roughen(text: str, rng: Random) -> str:
    """Type the text as a hurried customer might; about a third of texts get a slip."""
    if rng.random() < 0.1:
        pattern, short = rng.choice(_SHORT)
        text = pattern.sub(short, text)
    if rng.random() < 0.35:
        text = "".join(part if part.startswith("{") else part.lower() for part in _SLOT.split(text))
    if rng.random() < 0.3:
        text = text.rstrip(".?!")
    elif rng.random() < 0.05:
        text = text.rstrip(".?!") + rng.choice(("??", "!!", "...", "!"))
    slips = rng.random()
    if slips < 0.35:
        text = slip(text, rng)
    if slips < 0.08:
        text = slip(text, rng)
    return text


def slip(text: str, rng: Random) -> str:
    """Swap, drop, double or mistype one letter inside one word of four letters or more."""
    words = [
        (start + found.start(), start + found.end()) for start, part in _parts(text) for found in _WORD.finditer(part)
    ]
    if not words:
        return text
    start, end = rng.choice(words)
    at = rng.randrange(start + 1, end - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    if kind == 2:
        return text[:at] + text[at] + text[at:]
    return text[:at] + rng.choice(_NEAR[text[at]]) + text[at + 1 :]


def _parts(text: str) -> list[tuple[int, str]]:
    """Give the stretches between slots with their offsets."""
    parts, at = [], 0
    for part in _SLOT.split(text):
        if not part.startswith("{"):
            parts.append((at, part))
        at += len(part)
    return parts
