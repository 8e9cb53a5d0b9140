"""Training rows in other wordings: with slips of the fingers, other casing, a greeting around them. Pure and seeded.

Only rows to learn from have such variants, one each at most. A variant is not made where it would say the same as its
row, nearly what a held-out or golden row says, or no longer what the target (where it is no class) copies from it.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from retrain_jobs.examples import Example, Turn
from retrain_jobs.likeness import NearIndex, prompt_text
from retrain_jobs.perturb import recase, slip
from service.settings import Augment

TEMPLATES = (
    "Hello, {}", "Hi there! {}", "Quick question: {}", "I need help with this: {}", "Could you help me? {}",
    "{} Thanks!", "{} Thank you in advance.", "{} Please advise.",
)  # fmt: skip
"""In English only: for other languages leave `templates` out."""

A_CLASS = 3
"""A target seen this often is a class: that the prompt has the same word is chance."""

_WORD = re.compile(r"\w{4,}")


def _phrase(text: str, rng: random.Random) -> str:
    return rng.choice(TEMPLATES).format(text)


_WAYS: Mapping[Augment, Callable[[str, random.Random], str]] = {
    Augment.TYPOS: slip,
    Augment.CASING: recase,
    Augment.TEMPLATES: _phrase,
}


def variants(
    rows: Sequence[Example], kinds: Sequence[Augment], unseen: Iterable[Sequence[Turn]], *, seed: int
) -> tuple[Example, ...]:
    """A variant of each row in one of the ways, in the rows' order; `unseen` are prompts to keep away from."""
    if not kinds:
        return ()
    index = NearIndex(prompt_text(prompt) for prompt in unseen)
    times = Counter(row.target for row in rows)
    found = []
    for row in rows:
        kind = random.Random(f"{seed}/augment/{row.request_id}").choice(kinds)
        made = variant(row, kind, seed=seed)
        says_all = times[row.target] >= A_CLASS or _says_the_target(row, made)
        if made.prompt != row.prompt and says_all and prompt_text(made.prompt) not in index:
            found.append(made)
    return tuple(found)


def variant(row: Example, kind: Augment, *, seed: int) -> Example:
    """The row with its user's last message in another wording; the same row, kind and seed, the same wording."""
    rng = random.Random(f"{seed}/{kind}/{row.request_id}")
    prompt = list(row.prompt)
    for place in reversed(range(len(prompt))):
        if prompt[place].role == "user":
            prompt[place] = replace(prompt[place], content=_WAYS[kind](prompt[place].content, rng))
            break
    return replace(row, request_id=f"{row.request_id}+{kind}", prompt=tuple(prompt))


def origin(made: Example) -> str:
    """The id of the row that a variant is of."""
    return made.request_id.rpartition("+")[0]


def by_kind(made: Iterable[Example]) -> dict[str, list[str]]:
    """The ids of the rows that have variants, by kind: with the seed, enough to make them again."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in made:
        found[_kind(one)].append(origin(one))
    return dict(sorted(found.items()))


def counted(made: Iterable[Example]) -> dict[str, int]:
    """How many variants of each kind."""
    return dict(sorted(Counter(map(_kind, made)).items()))


def made_again(rows: Sequence[Example], recorded: Mapping[str, Sequence[str]], *, seed: int) -> tuple[Example, ...]:
    """The variants that `by_kind` told of, in the rows' order."""
    kinds = {row: Augment(kind) for kind, ids in recorded.items() for row in ids}
    return tuple(variant(row, kinds[row.request_id], seed=seed) for row in rows if row.request_id in kinds)


def _kind(made: Example) -> str:
    return made.request_id.rpartition("+")[2]


def _says_the_target(row: Example, made: Example) -> bool:
    """Whether every word that the target takes from the prompt is still there, letter by letter."""
    before, after = (" ".join(turn.content for turn in one.prompt) for one in (row, made))
    copied = set(_WORD.findall(row.target)) & set(_WORD.findall(before))
    return copied <= set(_WORD.findall(after))
