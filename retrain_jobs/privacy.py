"""Personal data never reaches the weights: e-mail, phone, card and account numbers become others of the same shape, as
does what the owner's own functions find, such as names.

The same value gets the same stand-in throughout one row, prompt and target alike, so that a task which copies such
values can still be learned. Stand-ins come from the request's id, not from the value, and so tell nothing about it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import cycle

from retrain_jobs.examples import Example, Turn
from service.core.errors import ConfigError
from service.drivers.plugins import load_finder

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_PHONE = re.compile(
    r"""(?<![\w.+-])(?:
        \+\d{1,3}(?:[ ./-]?\(?\d{1,8}\)?){1,6}          # +49 170 1234567
      | \(?0\d{1,5}\)?(?:[ ./-]?\d{2,8}){1,4}           # (020) 7946 0958
      | (?:\(\d{3}\)\ ?|\d{3}[ .-])\d{3}[ .-]\d{4}     # 415-555-2671
    )(?![\w-])""",
    re.VERBOSE,
)
_IBAN = re.compile(r"(?<![\w-])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![\w-])")
_PHONE_DIGITS = range(9, 16)
_DATE = re.compile(r"(?:19|20)\d{2}[ .-]\d{2}[ .-]\d{2}(?!\d)|\d{2}[ .-]\d{2}[ .-](?:19|20)\d{2}(?!\d)")

FOUND = "found"
"""The kind of what the owner's functions find."""
_NAMES = (
    "Alex", "Bryn", "Casey", "Devon", "Eden", "Flynn", "Gale", "Harper", "Indigo", "Jules", "Kit", "Lane", "Marlow",
    "Noel", "Oakley", "Perry", "Quinn", "Remy", "Sage", "Toby", "Umber", "Vale", "Wren", "Yael",
)  # fmt: skip

Stand = Callable[[str, str], str]
"""A kind's stand-in for a value, given hex digits to draw from."""


def scrub(example: Example, finders: Sequence[str] = ()) -> tuple[Example, Mapping[str, int]]:
    """The example without personal data, and how many distinct values of each kind it held.

    `finders` are import paths of functions that return the personal values in a text, as they stand there: what one
    finds in one message is replaced in all of them. Raises ConfigError where one is not there or fails.
    """
    stands: dict[str, str] = {}
    counts: dict[str, int] = {}

    def stand(kind: str, make: Stand) -> Callable[[re.Match[str]], str]:
        def replaced(match: re.Match[str]) -> str:
            value = match[0]
            if not _is_personal(kind, value):
                return value
            if value not in stands:
                counts[kind] = counts.get(kind, 0) + 1
                seed = f"{example.request_id}/{len(stands)}".encode("utf-8", "surrogatepass")
                stands[value] = make(value, sha256(seed).hexdigest())
            return stands[value]

        return replaced

    def clean(text: str) -> str:
        text = _EMAIL.sub(stand("email", _email), text)
        text = _IBAN.sub(stand("iban", _iban), text)
        text = _CARD.sub(stand("card", _card), text)
        text = _PHONE.sub(stand("phone", _digits), text)
        return found.sub(stand(FOUND, _name), text) if found else text

    found = _found([*(turn.content for turn in example.prompt), example.target], finders)
    prompt = tuple(Turn(turn.role, clean(turn.content)) for turn in example.prompt)
    return replace(example, prompt=prompt, target=clean(example.target)), counts


def scrubbed(rows: Sequence[Example], finders: Sequence[str], counts: Counter[str]) -> list[Example]:
    """The rows without personal data; the values that they held are added to `counts` by kind."""
    clean = []
    for row in rows:
        made, held = scrub(row, finders)
        counts.update(held)
        clean.append(made)
    return clean


def is_card(text: str) -> bool:
    """Whether the digits of `text` pass Luhn's check."""
    digits = [int(c) for c in text if c.isdigit()]
    odd, even = digits[-1::-2], digits[-2::-2]
    return sum(odd) % 10 == -sum(sum(divmod(2 * d, 10)) for d in even) % 10 if digits else False


def is_iban(text: str) -> bool:
    """Whether an international bank account number passes its check (ISO 13616: modulo 97)."""
    plain = "".join(text.split())
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _is_personal(kind: str, value: str) -> bool:
    if kind == "card":
        return is_card(value) and any(c != "0" for c in value)
    if kind == "iban":
        return is_iban(value)
    if kind == "phone":
        return sum(c.isdigit() for c in value) in _PHONE_DIGITS and not _DATE.match(value)
    return True


def _found(texts: Sequence[str], finders: Sequence[str]) -> re.Pattern[str] | None:
    """What matches the values that the finders find, longer ones first; None where there are none."""
    values = {value for path in finders for text in texts for value in _asked(path, text)}
    if not values:
        return None
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(values, key=lambda v: (-len(v), v))))})(?!\w)")


def _asked(path: str, text: str) -> list[str]:
    finder = load_finder(path)
    try:
        values = finder(text)
        if isinstance(values, str):
            raise TypeError("it returned one string")  # whose letters would each be replaced
        values = [value.strip() for value in values]
    except Exception as error:  # the owner's function may fail in any way
        raise ConfigError(
            f"retrain.personal: {path} failed on a text ({type(error).__name__}: {error}); it must return the personal "
            "values in a text as strings.",
            param="retrain.personal",
        ) from error
    return [value for value in values if value]


def _name(value: str, draw: str) -> str:
    """Other words and digits in the same places; words begin as those did, in capitals or not."""
    made = iter(range(0, len(draw), 2))

    def other(word: re.Match[str]) -> str:
        drawn = int(draw[next(made, 0) :][:2] or "0", 16)
        chosen = next(name for name in _NAMES[drawn % len(_NAMES) :] + _NAMES if name.lower() != word[0].lower())
        return chosen if word[0][0].isupper() else chosen.lower()

    return _digits(re.sub(r"[^\W\d_]{2,}", other, value), draw)


def _email(_: str, draw: str) -> str:
    return f"user{int(draw[:8], 16) % 10_000:04d}@example.com"


def _digits(value: str, draw: str) -> str:
    fresh = cycle(str(int(draw, 16)))
    return "".join(next(fresh) if c.isdigit() else c for c in value)


def _iban(value: str, draw: str) -> str:
    """Of the same country and shape, with a right check."""
    body = _digits(value[4:], draw)
    plain = "".join(body.split())
    rest = int("".join(str(int(c, 36)) for c in f"{plain}{value[:2]}00")) % 97
    return f"{value[:2]}{98 - rest:02d}{body}"


def _card(value: str, draw: str) -> str:
    made = _digits(value, draw)
    last = max(i for i, c in enumerate(made) if c.isdigit())
    return next(card for d in "0123456789" if is_card(card := made[:last] + d + made[last + 1 :]))
