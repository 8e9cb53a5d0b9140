"""Blobs: a prefix is written once, appears whole, and can be read as a folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import obstore
import pytest

from service.core.errors import BadRequest, ConfigError, Conflict, NotFound, Unavailable
from service.drivers.blobs import FolderBlobs, ObjectBlobs, open_blobs
from service.ports import Blobs

PREFIX = "support@3fa9c1d2e4b5"
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": bytes(range(256)) * 100}


@pytest.fixture(params=["file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    url = (tmp_path / "kept here").as_uri() if request.param == "file" else "memory://"
    return open_blobs(url, tmp_path / "cache")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*")}


async def test_what_is_put_can_be_got(blobs: Blobs) -> None:
    assert await blobs.list(PREFIX) == []
    await blobs.put(PREFIX, FILES)
    assert await blobs.list(PREFIX) == sorted(FILES)
    for name, content in FILES.items():
        assert await blobs.get(PREFIX, name) == content
    with pytest.raises(NotFound):
        await blobs.get(PREFIX, "other.json")
    with pytest.raises(NotFound):
        await blobs.get("support@000000000000", "adapter_config.json")


async def test_a_prefix_is_written_once(blobs: Blobs) -> None:
    await blobs.put(PREFIX, FILES)
    await blobs.put(PREFIX, FILES)
    with pytest.raises(Conflict, match="written once"):
        await blobs.put(PREFIX, FILES | {"adapter_config.json": b"{1}"})
    with pytest.raises(Conflict):
        await blobs.put(PREFIX, {"adapter_config.json": b"{}"})
    assert await blobs.get(PREFIX, "adapter_config.json") == b"{}"


async def test_of_many_that_put_at_once_all_succeed(blobs: Blobs) -> None:
    await asyncio.gather(*(blobs.put(PREFIX, FILES) for _ in range(8)))
    assert await blobs.list(PREFIX) == sorted(FILES)


async def test_a_local_folder_holds_the_files(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await blobs.local(PREFIX)
    await blobs.put(PREFIX, FILES)
    folders = {await blobs.local(PREFIX), *await asyncio.gather(blobs.local(PREFIX), blobs.local(PREFIX))}
    assert len(folders) == 1
    folder = Path(folders.pop())
    assert folder.is_absolute()
    assert contents(folder) == FILES
    await blobs.delete(PREFIX)
    assert contents(folder) == {}
    with pytest.raises(NotFound):
        await blobs.local(PREFIX)


async def test_deleting_is_final_and_idempotent(blobs: Blobs) -> None:
    await blobs.put(PREFIX, FILES)
    await blobs.put("billing@000000000000", FILES)
    await blobs.delete(PREFIX)
    await blobs.delete(PREFIX)
    assert await blobs.list(PREFIX) == []
    assert await blobs.list("billing@000000000000") == sorted(FILES)
    await blobs.put(PREFIX, {"new.json": b"1"})
    assert await blobs.get(PREFIX, "new.json") == b"1"


async def test_prefixes_may_nest(blobs: Blobs) -> None:
    await blobs.put("reports/support/1", {"report.html": b"<p>"})
    assert await blobs.list("reports/support/1") == ["report.html"]


@pytest.mark.parametrize("prefix", ["", "/etc", "..", "a/../b", "a//b", ".hidden", "a b"])
async def test_a_prefix_never_leaves_the_store(blobs: Blobs, prefix: str) -> None:
    for call in (blobs.put(prefix, FILES), blobs.list(prefix), blobs.delete(prefix), blobs.local(prefix)):
        with pytest.raises(BadRequest):
            await call


@pytest.mark.parametrize("name", ["", "../x", "a/b", "_complete", ".x"])
async def test_a_name_never_leaves_its_prefix(blobs: Blobs, name: str) -> None:
    with pytest.raises(BadRequest):
        await blobs.put(PREFIX, {name: b"x"})
    with pytest.raises(BadRequest):
        await blobs.put(PREFIX, {})


async def test_a_put_that_failed_halfway_left_nothing_in_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    blobs = FolderBlobs(root)
    with pytest.raises(TypeError):
        await blobs.put(PREFIX, {"one": b"x", "two": "not bytes"})  # type: ignore[dict-item]
    assert list(root.iterdir()) == []


async def test_an_upload_without_its_marker_does_not_exist(tmp_path: Path) -> None:
    blobs = open_blobs("memory://", tmp_path / "cache")
    assert isinstance(blobs, ObjectBlobs)
    await blobs.put(PREFIX, FILES)
    await obstore.delete_async(blobs._store, f"{PREFIX}/_complete")
    assert await blobs.list(PREFIX) == []
    with pytest.raises(NotFound):
        await blobs.get(PREFIX, "adapter_config.json")
    with pytest.raises(NotFound):
        await blobs.local(PREFIX)
    await blobs.put(PREFIX, FILES)
    assert await blobs.list(PREFIX) == sorted(FILES)


async def test_content_that_was_changed_is_not_handed_out(tmp_path: Path) -> None:
    blobs = open_blobs("memory://", tmp_path / "cache")
    assert isinstance(blobs, ObjectBlobs)
    await blobs.put(PREFIX, FILES)
    await obstore.put_async(blobs._store, f"{PREFIX}/adapter_config.json", b"{9}")
    with pytest.raises(Unavailable, match="not what was written"):
        await blobs.local(PREFIX)
    assert not list((tmp_path / "cache").glob("*"))


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match=r"check blobs\.url"):
        await FolderBlobs(tmp_path / "file" / "below").put(PREFIX, FILES)


@pytest.mark.parametrize("url", ["ftp://host/x", "just/a/path", "az://container/x"])
def test_a_wrong_url_is_a_configuration_error(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError, match=r"blobs\.url"):
        open_blobs(url, tmp_path)


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "gs://bucket/prefix"])
def test_buckets_can_be_named(url: str, tmp_path: Path) -> None:
    assert isinstance(open_blobs(url, tmp_path), ObjectBlobs)
