"""Files under immutable prefixes: in a folder, or in an object store through obstore.

A prefix is written once and appears whole: a folder by one rename, in an object store by a marker that is written
last. What lacks its marker does not exist for any reader.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import obstore
from obstore.exceptions import BaseError
from obstore.store import MemoryStore, from_url

from service.core.errors import BadRequest, ConfigError, Conflict, NotFound, TrimtabError, Unavailable
from service.drivers.failpoints import Failpoint, reach
from service.drivers.scratch import clear_abandoned, scratch
from service.ports import Blobs

MARKER = "_complete"
_DRAFT = ".draft-"

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+=-]{0,254}")
_DIGESTS = msgspec.json.Decoder(dict[str, str])


def open_blobs(url: str, cache_dir: Path) -> Blobs:
    """The store at `url`: file:///folder, s3://, gs://, az:// (options from the environment), or memory:// in tests.

    `cache_dir` takes local copies of what an object store holds.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FolderBlobs(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return ObjectBlobs(MemoryStore(), FolderBlobs(cache_dir))
    if parts.scheme not in ("s3", "gs", "az", "abfs", "abfss"):
        raise ConfigError(
            f"blobs.url cannot be {url!r}; use file:///path, s3://bucket/prefix, gs://… or az://….", param="blobs.url"
        )
    try:
        return ObjectBlobs(from_url(url), FolderBlobs(cache_dir))
    except BaseError as error:
        raise ConfigError(f"blobs.url {url!r} cannot be opened: {_first_line(error)}.", param="blobs.url") from error


class FolderBlobs:
    """`service.ports.Blobs` in a folder of this machine: `<root>/<prefix>/<name>`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, prefix: str, files: Mapping[str, bytes]) -> None:
        """The same files again are no change; other files under a used prefix: Conflict."""
        _check_names(prefix, files)
        async with _foreign_errors(prefix):
            await asyncio.to_thread(self._put, self._folder(prefix), files)

    async def get(self, prefix: str, name: str) -> bytes:
        _check_names(prefix, (name,))
        async with _foreign_errors(f"{prefix}/{name}"):
            return await asyncio.to_thread((self._folder(prefix) / name).read_bytes)

    async def list(self, prefix: str) -> Sequence[str]:
        """The names of the files under `prefix`, sorted; none where it does not exist."""
        return await asyncio.to_thread(_file_names, self._folder(prefix))

    async def delete(self, prefix: str) -> None:
        """Absent already is success."""
        async with _foreign_errors(prefix):
            await asyncio.to_thread(self._delete, self._folder(prefix))

    async def local(self, prefix: str) -> str:
        folder = self._folder(prefix)
        if not await asyncio.to_thread(_file_names, folder):
            raise _missing(prefix)
        return str(folder.absolute())

    async def tidy(self) -> None:
        await asyncio.to_thread(clear_abandoned, self._root, _DRAFT)

    def _folder(self, prefix: str) -> Path:
        return self._root / _check_prefix(prefix)

    def _put(self, folder: Path, files: Mapping[str, bytes]) -> None:
        if folder.exists():
            _check_same(folder.name, {name: (folder / name).read_bytes() for name in _file_names(folder)}, files)
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch(self._root, _DRAFT) as draft:
            for name, content in files.items():
                _write_through(draft / name, content)
            _sync_folder(draft)
            reach(Failpoint.DRAFT_WRITTEN)
            try:
                draft.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                self._put(folder, files)  # Another process was first.
            _sync_folder(folder.parent)
        reach(Failpoint.DRAFT_PLACED)

    def _delete(self, folder: Path) -> None:
        if folder.exists():
            with scratch(self._root, _DRAFT) as draft:
                folder.rename(draft / "deleted")
                reach(Failpoint.FILES_HIDDEN)


class ObjectBlobs:
    """`service.ports.Blobs` in an object store; the marker holds every file's SHA-256."""

    def __init__(self, store: Any, cache: FolderBlobs) -> None:
        self._store = store
        self._cache = cache

    async def put(self, prefix: str, files: Mapping[str, bytes]) -> None:
        """The same files again are no change; other files under a used prefix: Conflict."""
        _check_names(prefix, files)
        digests = {name: sha256(content).hexdigest() for name, content in files.items()}
        kept = await self._digests(prefix)
        if kept:
            _check_same(prefix, kept, digests)
            return
        async with _foreign_errors(prefix):
            for name, content in files.items():
                await obstore.put_async(self._store, f"{prefix}/{name}", content)
            await obstore.put_async(self._store, f"{prefix}/{MARKER}", msgspec.json.encode(digests))

    async def get(self, prefix: str, name: str) -> bytes:
        _check_names(prefix, (name,))
        digest = (await self._digests(prefix)).get(name)
        if digest is None:
            raise _missing(f"{prefix}/{name}")
        content = await self._read(f"{prefix}/{name}")
        if sha256(content).hexdigest() != digest:
            raise Unavailable(f"{prefix}/{name} in the adapter store is not what was written; delete it, add it again.")
        return content

    async def list(self, prefix: str) -> Sequence[str]:
        """The names of the files under `prefix`, sorted; none where it does not exist."""
        return sorted(await self._digests(_check_prefix(prefix)))

    async def delete(self, prefix: str) -> None:
        """Absent already is success."""
        await self._cache.delete(prefix)
        async with _foreign_errors(prefix):
            found = [entry["path"] async for page in obstore.list(self._store, f"{prefix}/") for entry in page]
            # Without its marker the rest is gone for readers already.
            for path in sorted(found, key=lambda path: not path.endswith(f"/{MARKER}")):
                await obstore.delete_async(self._store, path)

    async def local(self, prefix: str) -> str:
        if not await self._cache.list(prefix):
            files = {name: await self.get(prefix, name) for name in await self.list(prefix)}
            if not files:
                raise _missing(prefix)
            await self._cache.put(prefix, files)
        return await self._cache.local(prefix)

    async def tidy(self) -> None:
        await self._cache.tidy()

    async def _digests(self, prefix: str) -> dict[str, str]:
        try:
            return _DIGESTS.decode(await self._read(f"{prefix}/{MARKER}"))
        except NotFound:
            return {}

    async def _read(self, path: str) -> bytes:
        async with _foreign_errors(path):
            reply = await obstore.get_async(self._store, path)
            return bytes(await reply.bytes_async())


@asynccontextmanager
async def _foreign_errors(path: str) -> AsyncIterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (BaseError, OSError) as error:
        raise Unavailable(f"The adapter store cannot be used: {_first_line(error)}; check blobs.url.") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _missing(path: str) -> TrimtabError:
    return NotFound(f"The adapter store has no {path!r}; add the adapter again with `trimtab adapters add`.")


def _check_prefix(prefix: str) -> str:
    if not prefix or not all(_SEGMENT.fullmatch(segment) for segment in prefix.split("/")):
        raise BadRequest(f"{prefix!r} cannot be a prefix of the adapter store.", param="prefix")
    return prefix


def _check_names(prefix: str, names: Mapping[str, bytes] | Sequence[str]) -> None:
    _check_prefix(prefix)
    for name in names:
        if not _SEGMENT.fullmatch(name):
            raise BadRequest(f"{name!r} cannot name a file of the adapter store.", param="name")
    if not names:
        raise BadRequest(f"There is nothing to write under {prefix!r}.", param="files")


def _check_same(prefix: str, kept: Mapping[str, object], given: Mapping[str, object]) -> None:
    if dict(kept) != dict(given):
        raise Conflict(f"{prefix!r} holds other files already; a prefix is written once.")


def _file_names(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
