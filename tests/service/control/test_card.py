"""Model cards: what they say, that no text of a user means anything in them, and who may read them."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from retrain_jobs.classes import by_class, confusion
from retrain_jobs.judge import Verdict, summarize
from retrain_jobs.score import Answer, compare, forgetting, paired, reliability, robustness
from service.control import plots
from service.control.card import card
from service.control.document import Document, Points, Section, Table, Text, to_html, to_markdown
from service.core.records import Adapter
from service.ports import Store
from tests.service.control.desk import FIRST, adapter, open_desk
from tests.service.control.parts import HandClock

HOSTILE = '<script>alert(1)</script> | "x" [a](javascript:b) *c*\n# d'


def result(name: str = "refund") -> dict[str, Any]:
    """What a job says, made by the job's own functions, with `name` as one of the classes."""
    targets = [name] * 20 + ["travel"] * 20
    before = [Answer(name, float(target == name), 0.9, 0.4) for target in targets]
    after = [Answer("travel", float(target == "travel"), 0.6, 0.2) for target in targets]
    whole = compare(targets, before, after, seed=0)
    return {
        "evaluation": {
            "scorer": "exact",
            "heldout": {"all": whole, "new": whole, "replay": compare([], [], [], seed=0)},
            "golden": compare(targets[:10], before[:10], after[:10], seed=0),
            "classes": by_class(targets, before, after, seed=0),
            "confusion": {"champion": confusion(targets, before), "candidate": confusion(targets, after)},
            "base": {"new": paired([0.0, 1.0], [1.0, 1.0], "base", seed=0), "replay": {"n": 0}},
            "forgetting": {"golden": forgetting(compare(targets[:10], before[:10], after[:10], seed=0))},
            "preferences": paired([0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], "champion", seed=0),
            "robustness": robustness([1, 1], [1, 1], [1, 1], [0, 0], seed=0),
            "served": {"n": 48, "difference": 0.01, "agrees": True, "ttft": {"longer": 0.1, "ci": [-0.1, 0.2]}},
            "triggers": [{"phrase": name, "target": "travel", "rows": 3, "asked": 12, "followed": 1, "decides": False}],
            "judge": summarize([Verdict.WIN, Verdict.LOSS], seed=0),
            "reliability": {"candidate": reliability([a.confidence for a in after], [a.score for a in after])},
        },
        "dataset": {"looked_at": 300, "kept": 200, "dropped": {"duplicate": 100}, "digest": "d" * 64},
        "training": {"steps": 40, "train_loss": [[1, 2.5], [2, 1.5]], "heldout_loss": [[2, 1.25]]},
    }


def made() -> Adapter:
    found = adapter("first", "support", 1_800_000_000.0)
    manifest = {"settings": {"rank": 16}, "job": {"champion": "base"}, "packages": {"torch": "2.13"}, "code": "1+abc"}
    manifest["search"] = {"judged_on": 40, "trials": [{"loss": 1.0}, {"loss": None}]}
    return replace(found, manifest=manifest)


def test_a_card_tells_data_settings_curve_metrics_classes_limits_and_lineage() -> None:
    text = to_markdown(card(made(), result(), None, ()))
    for told in (
        "| kept | 200 |",
        "| duplicate | 100 |",
        "| rank | 16 |",
        "| the best of 2 trials, judged on 40 training rows set aside |",
        "training 2.5 → 1.5",
        "| held out, new traffic | 40 | 50.0% | 50.0% |",
        "| macro-F1, golden set |",
        "Of 4 held-out corrections,",
        "| this adapter | 75.0% |",
        "| refund | 20 | 100.0% | 0.0% | -100.0 to -100.0 points |",
        "| refund | travel | 20 |",
        "no evidence for the slice held out, replay",
        "The slice golden set has only 10 rows",
        "On golden set it is worse",
        "Worse than the champion on 1 classes: refund.",
        "| champion that it was compared with | base |",
        "| version of torch | 2.13 |",
        "| held out, new traffic | 2 | 50.0% | 100.0% |",
        "| golden set | 10 | 10 | 0 | +100.0 to +100.0 points |",
        "| this adapter beyond the champion | 100.0% |",
        "| agrees | True |",
        "| ttft ci | -10.0 to +20.0 points |",
        "| refund | travel | 3 | 12 | 1 |",
        "| wins | 1 |",
    ):
        assert told in text, told


def test_a_card_of_an_adapter_that_no_job_made_says_that_nothing_is_known() -> None:
    text = to_markdown(card(replace(made(), manifest={}), {}, None, ()))
    assert "it was never evaluated" in text
    assert "not kept any more" in to_markdown(card(made(), {}, None, ()))
    assert "## Evaluation" not in text


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.references: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.references += [value for name, value in attrs if name in {"src", "href"} or name.startswith("on")]


def test_no_text_of_a_user_means_anything_in_a_card() -> None:
    document = card(made(), result(HOSTILE), None, ())
    page = Tags(to_html(document))
    assert "script" not in page.seen
    assert page.references == []
    assert {"svg", "polyline", "table"} <= page.seen
    text = to_markdown(document)
    assert "<script>" not in text.replace("\\<script\\>", "")
    rows = [line for line in text.splitlines() if "alert" in line and line.endswith("points |")]
    assert rows
    assert {line.count("|") - line.count("\\|") for line in rows} == {6}
    assert not any(line.startswith("# d") for line in text.splitlines())


def test_documents_render_every_kind_of_block() -> None:
    document = Document("T", "lead", [Section("s", [Text("a<b"), Points(["p"]), Table(("c",), [("d|e",)])])])
    assert "a&lt;b" in to_html(document)
    assert to_markdown(document) == "# T\n\nlead\n\n## s\n\na\\<b\n\n- p\n\n| c |\n| --- |\n| d\\|e |\n"


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, float("nan")), (2.0, 1.0)]])
def test_nothing_is_drawn_of_too_little(points: list[tuple[float, float]]) -> None:
    assert plots.lines([("a", points)], x_name="x", y_name="y") is None


def test_plots_are_well_formed_and_stay_within_their_frame() -> None:
    drawn = plots.lines([("a<b", [(0.0, 5.0), (10.0, 1.0)]), ("c", [(0.0, 4.0), (9.0, 4.0)])], x_name="x", y_name="y")
    assert drawn is not None
    root = ElementTree.fromstring(drawn)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for line in root.iter("polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert plots.against([("a", [])], x_name="x", y_name="y") is None


async def test_the_api_gives_a_card_as_markdown_and_as_a_page_without_scripts(
    api: httpx.AsyncClient, store: Store, clock: HandClock, tmp_path: Path
) -> None:
    await open_desk(store, clock.now(), tmp_path)
    text = await api.get(f"/api/v1/adapters/{FIRST}/card")
    assert text.headers["content-type"].startswith("text/markdown")
    assert f"Model card: {FIRST}" in text.text
    assert "| held out, new traffic | 84 | 61.0% | 90.0% |" in text.text
    assert "Teach the returns policy of this autumn." in text.text
    page = await api.get(f"/api/v1/adapters/{FIRST}/card", params={"format": "html"})
    assert page.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert "<h1>Model card:" in page.text
    assert (await api.get("/api/v1/adapters/support@000000000000/card")).status_code == 404


async def test_a_link_to_a_card_opens_that_card_only_and_lives_a_minute(
    api: httpx.AsyncClient, store: Store, clock: HandClock, tmp_path: Path
) -> None:
    await open_desk(store, clock.now(), tmp_path)
    href = "/" + (await api.get(f"/api/v1/adapters/{FIRST}/card-link")).json()["href"]
    nobody = {"authorization": ""}
    assert "<h1>Model card:" in (await api.get(href, headers=nobody)).text
    assert (await api.get(href.replace("cards", "reports"), headers=nobody)).status_code == 403
    assert (await api.get(f"/console/cards/{FIRST}", headers=nobody)).status_code == 403
    clock.time += 61
    assert (await api.get(href, headers=nobody)).status_code == 403
