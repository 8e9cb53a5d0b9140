"""One alias's requests as a stream: each is weighed once, against the reference, as it comes; labels as they come.

Nothing of it is stored: after a restart, the newest `REPLAYED` requests after the reference are weighed again.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from service.core.drift import LABEL_SHARE, WINDOW_SHARE, Kind, Score
from service.core.records import Labelled
from service.core.season import Season, phase_of
from service.monitor.betting import FAR, LOSS
from service.monitor.embedders import Vectors
from service.monitor.evidence import Evidence, Rows
from service.monitor.features import Column, Features
from service.monitor.level import LABELS, REQUESTS
from service.monitor.neighbours import Neighbours
from service.monitor.signals import NOVELTY, Signal, Signals
from service.monitor.wording import evidence_told, labels_told

REPLAYED = 5000
EVIDENCE = "evidence"
LABEL_EVIDENCE = "label_evidence"

_REMEMBERED = 2000
"""Requests, and labels, that are kept to see whether an alarm is one client's alone."""

_KNOWN = 4 * REPLAYED
"""Requests that are known to be weighed, by their ids; older ones are not weighed any more, nor are their labels."""

_MOST_STEP = 50.0
_MORE_LABELS = 1.2
_SUSPECTS = 3
_LEAST_RANKS = 20
_STRANGE, _SURE = 0.1, 2.33
_LOSSES = (Signal("score", Kind.QUALITY, 0.5, LOSS), Signal("confident_errors", Kind.QUALITY, 0.5, (*LOSS, *FAR)))


@dataclass(frozen=True, slots=True)
class _Weighed:
    at: float
    phase: int
    source: str | None
    row: Rows


class Stream:
    """The evidence of one alias against one reference."""

    def __init__(
        self,
        rows: Sequence[Labelled],
        features: Features,
        near: Neighbours | None,
        *,
        every: float,
        least: int,
        season: Season,
    ) -> None:
        """
        Args:
            rows: the reference's, with their `features` and those `near` them (None without an embedder).
            every: declared requests between false alarms, windows and labels included.
            least: labelled requests that the reference must have before labels are weighed.
        """
        self._season = season
        self.signals = Signals(features, near)
        self._seen: dict[str, bool] = {}
        self._came: deque[tuple[float, str]] = deque()
        self._forgotten = -math.inf
        self._kept: deque[_Weighed] = deque(maxlen=_REMEMBERED)
        self._told: deque[_Weighed] = deque(maxlen=_REMEMBERED)
        self._sources = Counter(row.capture.source for row in rows)
        self._of = len(rows)
        phases = [phase_of(row.capture.at, season) for row in rows]
        self._every, self._least = every, least
        self.labels: Evidence | None = None
        self._labelled = 0
        self.requests: Evidence | None = None
        if self.signals.vary:
            self.requests = Evidence(
                self.signals.signals,
                self.signals.reference,
                phases,
                every=every / (1 - WINDOW_SHARE),
                step=1.0,
                needs=REQUESTS,
            )
        self.label(features)
        self.lone: str | None = None
        """The client without whose requests they would raise no alarm."""
        self.lone_labels: str | None = None
        """The client without whose labels they would raise no alarm."""

    def label(self, reference: Features) -> None:
        """Rank labels among the reference's, once there are enough; anew when clearly more of them have come."""
        labelled = np.isfinite(reference.scores)
        n = int(labelled.sum())
        if n < max(2, self._least) or n < _MORE_LABELS * self._labelled:
            return
        self._labelled = n
        rate = (1 - WINDOW_SHARE) / self._every
        lost = losses(reference)[labelled]
        step = min(_MOST_STEP, len(reference) / n)
        self.labels = Evidence(_LOSSES, lost, [0] * n, every=1 / (LABEL_SHARE * rate), step=step, needs=LABELS)
        if self.requests is not None:
            self.requests.declare(1 / ((1 - LABEL_SHARE) * rate))

    @property
    def alarm(self) -> bool:
        return any(score.alarm for score in self.scores())

    def unseen(self, rows: Sequence[Labelled]) -> list[Labelled]:
        """Those of which a request or a label has not been weighed, each once, in order of time."""
        fresh = {
            row.capture.request_id: row
            for row in rows
            if row.capture.at > self._forgotten
            and (
                row.capture.request_id not in self._seen
                or (row.feedback is not None and not self._seen[row.capture.request_id])
            )
        }
        return sorted(fresh.values(), key=lambda row: (row.capture.at, row.capture.request_id))

    def take(self, rows: Sequence[Labelled], features: Features, vectors: Vectors | None) -> None:
        """Weigh `unseen` rows, with their features and vectors."""
        measured = self.signals.measure(features, vectors)
        fresh = [i for i, row in enumerate(rows) if row.capture.request_id not in self._seen]
        weighed = [
            _Weighed(
                rows[i].capture.at, phase_of(rows[i].capture.at, self._season), rows[i].capture.source, measured[i]
            )
            for i in fresh
        ]
        if self.requests is not None:
            for phase, part in groupby(weighed, key=lambda one: one.phase):
                self.requests.take(np.stack([one.row for one in part]), phase)
        self._kept.extend(weighed)
        if self.labels is not None:
            told = [i for i, row in enumerate(rows) if row.feedback is not None and np.isfinite(features.scores[i])]
            if told:
                lost = losses(features)[told]
                self.labels.take(lost)
                sources = [rows[i].capture.source for i in told]
                self._told.extend(_Weighed(0.0, 0, source, row) for source, row in zip(sources, lost, strict=True))
        self._seen.update((row.capture.request_id, row.feedback is not None) for row in rows)
        self._came.extend((rows[i].capture.at, rows[i].capture.request_id) for i in fresh)
        while len(self._came) > _KNOWN:
            at, request = self._came.popleft()
            self._forgotten = max(self._forgotten, at)
            del self._seen[request]
        self.lone = self._one_client(self.requests, self._kept)
        self.lone_labels = self._one_client(self.labels, self._told)

    @property
    def set_aside(self) -> frozenset[str]:
        """The clients whose requests or labels alone would raise an alarm."""
        return frozenset(one for one in (self.lone, self.lone_labels) if one is not None)

    def scores(self) -> list[Score]:
        """The evidence as detectors, on the scale of its logarithm."""
        found = []
        if self.requests is not None:
            shares = self.requests.shares()
            kind = shares[0].signal.kind if shares else Kind.INPUT
            detail = evidence_told(shares, self.lone)
            found.append(_score(EVIDENCE, kind, self.requests, detail, held=self.lone is not None))
        if self.labels is not None:
            detail = labels_told(self.lone_labels)
            held = self.lone_labels is not None
            found.append(_score(LABEL_EVIDENCE, Kind.QUALITY, self.labels, detail, held=held))
        return found

    def beyond(self, newest: int) -> bool:
        """Whether more of the newest requests are strange than chance explains (99% sure)."""
        names = [signal.name for signal in self.signals.signals]
        if self.requests is None or NOVELTY not in names:
            return False
        place, n, strange = names.index(NOVELTY), 0, 0
        for phase, part in groupby(list(self._kept)[-newest:], key=lambda one: one.phase):
            ranks = self.requests.ranks(np.stack([one.row for one in part]), phase)[:, place]
            n += int(np.isfinite(ranks).sum())
            strange += int((ranks <= _STRANGE).sum())
        if n < _LEAST_RANKS:
            return False
        return bool(strange > _STRANGE * n + _SURE * math.sqrt(_STRANGE * (1 - _STRANGE) * n))

    def _one_client(self, evidence: Evidence | None, weighed: Collection[_Weighed]) -> str | None:
        """The client without which the evidence would be no alarm; never one that most of the reference is from."""
        if evidence is None or not evidence.alarm:
            return None
        counts = Counter(one.source for one in weighed if one.source is not None)
        for source, _ in counts.most_common(_SUSPECTS):
            if self._sources[source] > self._of / 2:
                continue
            others = [one for one in weighed if one.source != source]
            parts = [
                (phase, np.stack([one.row for one in part]))
                for phase, part in groupby(others, key=lambda one: one.phase)
            ]
            if evidence.without(parts) < 1:
                return source
        return None


def _score(name: str, kind: Kind, evidence: Evidence, detail: str, *, held: bool) -> Score:
    score, threshold = evidence.on_log_scale()
    # An alarm that is in force stays one until the evidence has clearly gone; one that is held back is none.
    in_force = evidence.alarm and not held
    score = max(score, math.nextafter(threshold, math.inf)) if in_force else min(score, threshold)
    return Score(name, kind, score, threshold, detail)


def losses(features: Features) -> Column:
    """How bad a labelled reply was, and the same with confident errors as the worst."""
    confidence = np.nan_to_num(features.columns["confidence"], nan=0.5)
    loss = 1.0 - features.scores
    return np.column_stack([loss, loss * (1.0 + confidence)])
