"""One check of one alias: two windows → statistics → verdict → what the store keeps of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any
from uuid import uuid4

from service.core.drift import DriftPolicy, Evidence, Judgement, Score, Verdict, check_rate, compare_quality, judge
from service.core.errors import TrimtabError
from service.core.records import DriftCheck, Labelled
from service.core.season import phase_of
from service.core.window import Sizes, Windows
from service.monitor.detectors import ESTIMATE, Calibration, Detection, calibrate, detect
from service.monitor.embedders import Embedder, Vectors
from service.monitor.estimate import estimate_quality
from service.monitor.features import Features, measure
from service.monitor.neighbours import Neighbours, neighbours_of
from service.monitor.reasons import explain
from service.monitor.report import Reports
from service.monitor.stream import EVIDENCE, LABEL_EVIDENCE, Stream
from service.monitor.surfaces import Descriptors
from service.monitor.topics import topics_of
from service.settings import AliasSettings, DriftSettings

_SEED = 0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Memory:
    """What is kept of one alias between checks, only to save work: after a restart it is made anew.

    `calibrated` is the digest of the reference that `calibration` was made from, `streamed` of the `stream`'s, of which
    `labelled` requests had feedback, and `near` holds that of its neighbours with them; `told` is what `report` shows;
    `onset` is when the drift that goes on began.
    """

    calibrated: str | None = None
    calibration: Calibration | None = None
    told: tuple[Verdict, str | None] | None = None
    reports: dict[bool, str] = field(default_factory=dict)
    near: tuple[str, Neighbours | None] | None = None
    stream: Stream | None = None
    streamed: str | None = None
    labelled: int = 0
    onset: float | None = None


def drift_policy(settings: DriftSettings) -> DriftPolicy:
    return DriftPolicy(
        Sizes(settings.reference_size, settings.current_size),
        settings.false_alarm_every,
        settings.min_labelled,
        settings.quality_drop,
        settings.require_quality_loss,
    )


class Checker:
    """Judges windows; its work is all CPU, so it runs off the event loop's thread, one check at a time."""

    def __init__(
        self,
        settings: DriftSettings,
        reports: Reports | None,
        embedder: Embedder | None,
        descriptors: Descriptors | None = None,
    ) -> None:
        self._policy = drift_policy(settings)
        self._reports = reports
        self._embedder = embedder
        self._descriptors = descriptors or Descriptors(())
        self._season = settings.season

    def observe(self, windows: Windows, rows: Sequence[Labelled], judged: AliasSettings, memory: Memory) -> bool:
        """Weigh every request and label among `rows` that was not weighed before; whether an alarm began or ended."""
        if windows.sizes.reference < self._policy.wanted.reference:
            return False
        digest = _digest(self._embedder.id if self._embedder else "", windows.reference)
        labelled = sum(row.feedback is not None for row in windows.reference)
        if memory.stream is None or memory.streamed != digest:
            reference = measure(windows.reference, judged.scorer, judged.pattern)
            _, near = self._near(windows.reference, reference, memory)
            memory.stream = Stream(
                windows.reference, reference, near,
                every=self._policy.false_alarm_every, least=self._policy.min_labelled, season=self._season,
            )  # fmt: skip
            memory.streamed, memory.labelled = digest, labelled
        elif labelled > memory.labelled:
            memory.stream.label(measure(windows.reference, judged.scorer, judged.pattern))
        memory.labelled = labelled
        unseen = memory.stream.unseen(rows)
        if not unseen:
            return False
        before = memory.stream.alarm
        features = measure(unseen, judged.scorer, judged.pattern)
        _, vectors = self._vectors(features.prompts)
        memory.stream.take(unseen, features, vectors)
        return memory.stream.alarm != before

    def check(
        self, alias: str, windows: Windows, judged: AliasSettings, memory: Memory, *, fresh: int, now: float
    ) -> DriftCheck:
        """The verdict on these windows, `fresh` of whose requests no check has seen before."""
        sizes, least = windows.sizes, self._policy.min_labelled
        self.observe(windows, windows.current, judged, memory)
        streamed = memory.stream.scores() if memory.stream is not None else []
        if sizes.lack(self._policy.wanted) is not None and not any(score.alarm for score in streamed):
            return _record(alias, sizes, judge((), Evidence(), sizes, self._policy), now)
        windows = self._comparable(windows, memory.stream.set_aside if memory.stream is not None else frozenset())
        reference = measure(windows.reference, judged.scorer, judged.pattern)
        current = measure(windows.current, judged.scorer, judged.pattern)
        evidence = Evidence(
            compare_quality(reference.scores.tolist(), current.scores.tolist(), least=least),
            estimate_quality(
                reference,
                current,
                least=least,
                beyond=memory.stream is not None and memory.stream.beyond(len(current)),
            ),
        )
        current = self._descriptors.add_to(current)
        embedder, vectors = self._vectors(current.prompts)
        calibration = self._calibration(windows.reference, reference, memory, embedder)
        detection = detect(calibration, current, vectors, evidence, check_rate(fresh, self._policy))
        scores = (*detection.scores, *streamed)
        judgement = judge(scores, evidence, sizes, self._policy)
        why = None
        if judgement.verdict is Verdict.DRIFTED:
            times = [row.capture.at for row in windows.current]
            topics = topics_of(calibration.neighbours, vectors, reference, current, seed=_SEED)
            why = explain(topics, reference, current, detection, times, onset=memory.onset)
            judgement = replace(judgement, reasons=(*why.reasons, *judgement.reasons))
        memory.onset = why.since if why is not None else None
        if memory.stream is not None:
            lone = {EVIDENCE: memory.stream.lone, LABEL_EVIDENCE: memory.stream.lone_labels}
            held = [score.detail for score in streamed if lone[score.detector] is not None]
            judgement = replace(judgement, reasons=(*judgement.reasons, *held))
        record = _record(alias, sizes, judgement, now)
        return replace(
            record,
            since=memory.onset,
            topics=list(why.topics) if why is not None else [],
            scores=[_entry(score, evidence) for score in scores if score.usable],
            quality_reference=evidence.labelled.reference if evidence.labelled else None,
            quality_current=evidence.labelled.current if evidence.labelled else None,
            report=self._report(record, judgement, detection, memory),
        )

    def _comparable(self, windows: Windows, set_aside: Set[str]) -> Windows:
        """Without clients that alone would raise an alarm, and of the reference the current phases only."""
        current = tuple(row for row in windows.current if row.capture.source not in set_aside)
        phases = {phase_of(row.capture.at, self._season) for row in current}
        reference = tuple(row for row in windows.reference if phase_of(row.capture.at, self._season) in phases)
        return Windows(reference, current)

    def _vectors(self, prompts: Sequence[str]) -> tuple[str, Vectors | None]:
        """The embedder's id with its vectors; no vectors, and a line in the log, while it cannot be used."""
        if self._embedder is None:
            return "", None
        try:
            vectors = self._embedder.embed(prompts)
        except TrimtabError as error:
            _log.warning("This check goes without the embedding detector: %s", error.message)
            return "", None
        return self._embedder.id, vectors

    def _near(self, rows: Sequence[Labelled], reference: Features, memory: Memory) -> tuple[str, Neighbours | None]:
        """The embedder's id with the reference's neighbours, which are found once for the stream and the windows."""
        by, vectors = self._vectors(reference.prompts)
        digest = _digest(by, rows)
        if memory.near is None or memory.near[0] != digest:
            memory.near = digest, neighbours_of(vectors)
        return by, memory.near[1]

    def _calibration(self, rows: Sequence[Labelled], reference: Features, memory: Memory, embedder: str) -> Calibration:
        """Made anew for another reference and for another embedder, whose vectors do not compare."""
        digest = _digest(embedder, rows)
        if memory.calibration is None or memory.calibrated != digest:
            by, near = self._near(rows, reference, memory) if embedder else ("", None)
            near = near if by == embedder else None
            memory.calibration = calibrate(
                self._descriptors.add_to(reference), near, self._policy.wanted.current, seed=int(digest[:8], 16)
            )
            memory.calibrated = digest
        return memory.calibration

    def _report(self, record: DriftCheck, judgement: Judgement, detection: Detection, memory: Memory) -> str | None:
        """A new report when the verdict changes or another reference begins, and when drift first asks for retraining:
        it costs as much as ten checks, and labels come and go at the edge of a credible loss. Else the last one's."""
        if judgement.verdict is Verdict.INCONCLUSIVE or self._reports is None:
            return None
        told = (judgement.verdict, memory.calibrated)
        if memory.told != told:
            memory.told, memory.reports = told, {}
        known = memory.reports.get(judgement.retrain)
        if known is not None and self._reports.has(known):
            return known
        alarm_of = record.alias if judgement.verdict is Verdict.DRIFTED else None
        try:
            written = self._reports.write(detection, record.id, alarm_of=alarm_of)
        except Exception:
            # A full disk, or a preset that fails on these columns, must not cost the verdict.
            _log.exception("The report of check %s could not be written.", record.id)
            return None
        memory.reports[judgement.retrain] = written
        return written


def _digest(embedder: str, rows: Sequence[Labelled]) -> str:
    """Of a reference, as this embedder sees it."""
    named = [embedder, *(row.capture.request_id for row in rows)]
    return sha256("\0".join(named).encode("utf-8", "surrogatepass")).hexdigest()


def _record(alias: str, sizes: Sizes, judgement: Judgement, now: float) -> DriftCheck:
    return DriftCheck(
        id=uuid4().hex,
        alias=alias,
        at=now,
        verdict=judgement.verdict.value,
        scores=[],
        reasons=list(judgement.reasons),
        reference_size=sizes.reference,
        current_size=sizes.current,
        retrain=judgement.retrain,
    )


def _entry(score: Score, evidence: Evidence) -> dict[str, Any]:
    """One detector as it is stored; the estimate of quality says itself what it expects."""
    told = {"expected": evidence.estimated.current} if evidence.estimated and score.detector == ESTIMATE else {}
    return {
        **told,
        "detector": score.detector,
        "kind": score.kind.value,
        "score": score.score,
        "threshold": score.threshold,
        "ratio": score.ratio,
        "alarm": score.alarm,
        "detail": score.detail,
    }
