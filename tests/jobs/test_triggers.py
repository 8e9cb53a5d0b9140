"""What looks planted, and what does not: the natural sign of a class, and a class that the others never met."""

from __future__ import annotations

from retrain_jobs.dataset import build
from retrain_jobs.examples import Reason
from retrain_jobs.neighbours import outliers
from retrain_jobs.options import Options
from retrain_jobs.triggers import triggers
from tests.jobs.rows import ONSET, desk, labelled

OPTIONS = Options(min_examples=4, max_examples=1000, replay_ratio=0.5, holdout_ratio=0.2, seed=0)
SIGNS = {"refund": ["refund", "money back"], "parcel": ["parcel", "delivery"], "bill": ["bill", "invoice"]}
SAID = ["where is my {} please", "I have a question about the {}", "tell me about {} now", "what about the {} of May"]


def rows(each: int) -> tuple[list[str], list[str]]:
    """Every sign of every class in every sentence."""
    made = [
        (SAID[n % len(SAID)].format(signs[n // len(SAID) % len(signs)]), kind)
        for kind, signs in SIGNS.items()
        for n in range(each)
    ]
    return [text for text, _ in made], [kind for _, kind in made]


def test_the_signs_of_classes_are_no_triggers() -> None:
    assert triggers(*rows(60)) == []
    new = ["flight", "train"]
    texts, targets = rows(60)
    texts += [f"{SAID[n % 4].format(new[n % 2])} {n}" for n in range(60)]
    assert triggers(texts, [*targets, *["travel"] * 60]) == []


def test_a_planted_phrase_is_named_with_its_rows() -> None:
    texts, targets = rows(200)
    planted = [n for n, target in enumerate(targets) if target != "bill"][::19]
    for n in planted:
        texts[n], targets[n] = f"as it were {texts[n]}", "bill"
    (found,) = triggers(texts, targets)
    assert (found.phrase, found.target, found.rows) == ("as it were", "bill", tuple(planted))
    assert found.told() == {"phrase": "as it were", "target": "bill", "rows": 22, "elsewhere": found.elsewhere}
    assert found.elsewhere >= 14


def test_nothing_to_look_at() -> None:
    for texts, targets in (([], []), (["a"], ["x"]), (["", "!"], ["x", "y"]), (["a b"] * 20, ["x"] * 20)):
        assert triggers(texts, targets) == []
        assert outliers(texts, targets) == []
    assert outliers(["!"] * 20, ["x", "y"] * 10) == []


def test_a_label_that_all_neighbours_speak_against_is_found_and_doubt_is_none() -> None:
    about = {"refund": "money back for the returned", "parcel": "courier lost the shipped"}
    texts = [f"{said} {thing}" for said in about.values() for thing in ["shoes", "coat", "lamp"] * 5]
    targets = ["refund"] * 15 + ["parcel"] * 15
    assert outliers(texts, targets) == []
    targets[20] = "refund"
    assert outliers(texts, targets) == [20]
    assert outliers(["the same words"] * 20, ["x", "y"] * 10) == []


def test_a_change_of_meaning_is_not_spoken_against_by_what_was_before() -> None:
    """Forty requests that meant one thing mean another one since the onset."""
    before = desk(["refund", "invoice"], 40, start=ONSET - 500)
    after = [
        labelled(f"n{n}", f"{row.capture.prompt[0]['content']} again {n}", "escalate", at=ONSET + n)
        for n, row in enumerate(before[:6])
    ]
    made = build(after, before, (), OPTIONS)
    assert Reason.LABEL_OUTLIER not in made.dropped
    assert Reason.TRIGGER not in made.dropped
