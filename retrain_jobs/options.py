"""How a training set is built."""

from __future__ import annotations

from dataclasses import dataclass

from service.settings import Augment, Recipe, RetrainSettings


@dataclass(frozen=True, slots=True)
class Options:
    """How a set is built.

    `replay_ratio` is the share of the kept rows that the reference may make up, `source_ratio` that of any one source,
    `key_ratio` that of any one key (0..1). `check_labels` leaves out what all else speaks against.
    Rows in other `languages` (none: all are wanted) are left out; `personal` are import paths of finders.
    """

    min_examples: int
    max_examples: int
    replay_ratio: float
    holdout_ratio: float
    seed: int
    source_ratio: float = 1.0
    key_ratio: float = 1.0
    check_labels: bool = True
    augment: tuple[Augment, ...] = ()
    recipe: Recipe = Recipe.SFT_LORA
    languages: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()

    @classmethod
    def of(cls, knobs: RetrainSettings) -> Options:
        return cls(
            knobs.min_examples, knobs.max_examples, knobs.replay_ratio, knobs.holdout_ratio, knobs.seed,
            knobs.max_source_ratio, knobs.max_key_ratio, knobs.check_labels, knobs.augment, knobs.recipe,
            knobs.languages, knobs.personal,
        )  # fmt: skip
