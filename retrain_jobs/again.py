"""Make an adapter again from its manifest: same rows, settings and pace on the same machine, the same bytes."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retrain_jobs.augment import made_again
from retrain_jobs.dataset import Dataset
from retrain_jobs.examples import Example, Reason, Slice, imported_example, to_example
from retrain_jobs.labels.rows import IMPORTED
from retrain_jobs.manifest import PACKAGES, RECIPE_FIELDS, code_version, package_versions
from retrain_jobs.options import Options
from retrain_jobs.preferences import turned_down
from retrain_jobs.privacy import scrub
from retrain_jobs.processes import Place
from retrain_jobs.work import Work
from service.core.errors import BadRequest, Conflict, NotFound
from service.core.merging import Merge
from service.core.progress import told
from service.core.records import JobPhase
from service.drivers.adapter_files import adapter_digest, read_adapter
from service.drivers.base_model import base_digest
from service.ports import Blobs, Store
from service.settings import RetrainSettings, Settings, WarmStart
from service.terminal import StatusLine

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A manifest; `wanted` is the digest of the adapter that it belongs to, where that is known."""

    content: Mapping[str, Any]
    wanted: str | None = None

    @property
    def alias(self) -> str:
        return str(self.content["job"]["alias"])

    @property
    def merge(self) -> Merge | None:
        asked = self.content["job"].get("merge")
        return Merge.read(asked) if asked else None

    @property
    def threads(self) -> int:
        return int(self.content["threads"])

    def settings(self, settings: Settings) -> Settings:
        """Ours with its way to train; what it does not know is as it was before there was a setting for it.

        A search is not made again, and of several starts only the one that was taken is.
        """
        then = {name: RetrainSettings.model_fields[name].default for name in RECIPE_FIELDS} | self.content["settings"]
        then |= {"search_s": 0.0, "warm_start": self.content.get("start", {}).get("taken", WarmStart.FRESH)}
        try:
            knobs = RetrainSettings.model_validate({**settings.retrain.model_dump(), **then})
        except ValidationError as error:
            raise BadRequest(f"The manifest's settings are none of ours: {error.errors()[0]['msg']}.") from error
        if knobs.personal != settings.retrain.personal:  # a manifest may come from anywhere: it names no code to run
            raise BadRequest(
                f"The manifest's rows were scrubbed by {list(knobs.personal)}, and retrain.personal is "
                f"{list(settings.retrain.personal)}; set it to the former.",
                param="retrain.personal",
            )
        return settings.model_copy(update={"retrain": knobs})

    def differences(self) -> list[str]:
        """What is not as it was when the manifest was written, where it may make another adapter."""
        processes = Place.of(os.environ).size
        now = {"code": code_version(), "processes": processes, **package_versions()}
        then = {"code": self.content["code"], "processes": self.content.get("processes", 1), **self.content["packages"]}
        return [
            f"{name} was {then.get(name)}, is {now[name]}"
            for name in ("code", "processes", *PACKAGES)
            if then.get(name) != now[name]
        ]


@dataclass(frozen=True, slots=True)
class Again:
    """What came out: its digest, the one that was wanted, and what was different."""

    digest: str
    wanted: str | None
    differences: Sequence[str]

    @property
    def same(self) -> bool:
        return self.wanted in (None, self.digest)


async def find_manifest(store: Store, name: str) -> Recorded:
    """The manifest of the adapter `name`, or the one in the file `name`.

    Raises:
        NotFound: there is neither.
        BadRequest: the file holds no manifest, or the adapter was not made by a job.
    """
    if "@" in name and "/" not in name:
        adapter = await store.adapter(name)
        return _checked(adapter.manifest, f"The adapter {name} was not made by a job: it", adapter.digest)
    return _read(name)


def _read(name: str) -> Recorded:
    try:
        content = json.loads(Path(name).read_text("utf-8"))
    except OSError as error:
        raise NotFound(f"There is no manifest at {name} ({error.strerror}); name a file or an adapter.") from error
    except ValueError as error:
        raise BadRequest(f"{name} is not JSON ({error}); `trimtab adapters show ADAPTER --json` prints one.") from error
    if isinstance(content, Mapping) and isinstance(content.get("manifest"), Mapping):  # as `adapters show` prints it
        return _checked(content["manifest"], name, content.get("digest"))
    return _checked(content, name, None)


async def make_again(store: Store, blobs: Blobs, settings: Settings, recorded: Recorded, out: Path | None) -> Again:
    """Train as the manifest says, and keep the adapter in the folder `out`.

    Raises:
        Conflict: the base model, the rows or the adapter it began from are not what they were; the message says which.
    """
    content = recorded.content
    found = base_digest(settings.model)
    if found != content["base_digest"]:
        raise Conflict(
            f"The base model {settings.model} is not the manifest's: its digest is {found[:12]}, that of the manifest "
            f"{content['base_digest'][:12]}; set `model` to the one that was used.",
            code="other_base",
        )
    knobs = recorded.settings(settings).retrain
    # A merge's rows only judged it.
    dataset = Dataset((), (), 0, {}, {}) if recorded.merge else await _rows(store, content["dataset"], knobs)
    parents = await _parents(blobs, recorded)
    differences = recorded.differences()
    for difference in differences:
        log.warning("not as it was: %s", difference)
    with tempfile.TemporaryDirectory(prefix="trimtab-again-") as scratch, closing(StatusLine(sys.stderr)) as status:
        folder = _make(settings, recorded, dataset, parents, Path(scratch), status)
        files = read_adapter(folder)
    if out is not None:
        _keep(files, out)
    return Again(adapter_digest(files), recorded.wanted, differences)


def _keep(files: Mapping[str, bytes], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (out / name).write_bytes(data)


async def _parents(blobs: Blobs, recorded: Recorded) -> list[str]:
    """The folders of the adapters whose weights went in."""
    found = []
    for name in recorded.content.get("parents") or ():
        try:
            found.append(await blobs.local(name))
        except NotFound as error:
            raise Conflict(
                f"The manifest's adapter began from {name}, which was removed; it cannot be made again.",
                code="parent_gone",
            ) from error
    return found


def _make(
    settings: Settings, recorded: Recorded, dataset: Dataset, parents: list[str], scratch: Path, status: StatusLine
) -> Path:
    from retrain_jobs.base import load_base
    from retrain_jobs.candidate import KINDS, fit, merge

    own = recorded.settings(settings)
    content = recorded.content
    try:
        config = KINDS[own.retrain.recipe].model_validate(content["recipe"])
    except ValidationError as error:
        names = ", ".join(str(fault["loc"][0]) for fault in error.errors())
        raise BadRequest(
            f"The manifest's recipe is another version's ({names}); "
            f"Trimtab {content['code']} can make the adapter again."
        ) from error
    champion = parents[0] if parents and not recorded.merge else None
    work = Work(
        own, recorded.alias, content["job"], dataset, (), champion, Options.of(own.retrain), scratch,
        recorded.threads, parents=parents,
    )  # fmt: skip
    base = load_base(
        settings.model, threads=recorded.threads, max_length=config.max_length, quantize=own.retrain.quantize
    )
    if recorded.merge is not None:
        return merge(work, base, config, recorded.merge).folder

    def report(phase: JobPhase, share: float, **detail: Any) -> None:
        status(f"{phase} {share:.0%}: {told(detail)}")

    return fit(work, base, config, report, pace=content["pace"]).folder


async def _rows(store: Store, recorded: Mapping[str, Any], knobs: RetrainSettings) -> Dataset:
    new = frozenset(recorded["new"])
    gone: list[str] = []

    async def read(side: str, request_id: str) -> Example | None:
        source = Slice.NEW if request_id in new else Slice.REPLAY
        made = await (_rejected if side == "rejected" else _example)(store, request_id, source)
        if isinstance(made, Reason):
            gone.append(request_id)
            return None
        return scrub(made, knobs.personal)[0]

    sides = {
        side: [await read(side, request_id) for request_id in recorded.get(side, ())]
        for side in ("train", "heldout", "rejected")
    }
    if gone:
        raise Conflict(
            f"{len(gone)} of the manifest's rows are not there or have no label any more, the first {gone[0]}: they "
            "were erased, aged out or relabelled, so the adapter cannot be made again.",
            code="rows_gone",
        )
    train, heldout, rejected = (tuple(row for row in rows if row is not None) for rows in sides.values())
    dataset = Dataset(train, heldout, len(train) + len(heldout), {}, {}, rejected=rejected)
    if dataset.digest != recorded["digest"]:
        raise Conflict(
            "The rows are there but do not say what they said: a label has changed since, so the adapter cannot be "
            "made again.",
            code="rows_changed",
        )
    return replace(dataset, variants=made_again(dataset.train, recorded.get("augmented", {}), seed=knobs.seed))


async def _example(store: Store, row_id: str, source: Slice) -> Example | Reason:
    try:
        if row_id.startswith(IMPORTED):
            return imported_example(await store.imported_row(row_id), source)
        return to_example(await store.capture(row_id), source)
    except NotFound:
        return Reason.NO_TARGET


async def _rejected(store: Store, row_id: str, source: Slice) -> Example | Reason:
    try:
        return turned_down(await store.capture(row_id), source)
    except NotFound:
        return Reason.NO_PAIR


def _checked(content: Any, where: str, digest: Any) -> Recorded:
    needed = ("dataset", "settings", "recipe", "job", "base_digest", "threads", "pace", "code", "packages")
    missing = [name for name in needed if not isinstance(content, Mapping) or name not in content]
    if missing:
        raise BadRequest(f"{where} has no manifest to train from: {', '.join(missing)} missing.")
    return Recorded(content, digest if isinstance(digest, str) else None)
