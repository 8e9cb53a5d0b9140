"""Texts → vectors, by onnxruntime on a thread budget or by a URL. Vectors of two embedders' ids do not compare."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import blake2b, file_digest, sha256
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.core.errors import ConfigError
from service.drivers.base_model import model_folder
from service.monitor.token_embeddings import export_token_embeddings
from service.monitor.url_embedder import UrlEmbedder
from service.settings import Settings

Vectors = NDArray[np.float32]

_FILES = ("model.onnx", "model.onnx_data", "weights.bin", "tokenizer.json")
_BATCH = 64
_MAX_TOKENS = 256
_REMEMBERED_BYTES = 64 * 2**20
_log = logging.getLogger(__name__)


class Embedder(Protocol):
    """`id` changes whenever the same text would get another vector."""

    @property
    def id(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector a text, shape [n, d]."""


class OnnxEmbedder:
    """A folder with `model.onnx` (inputs `input_ids`, `attention_mask`) and `tokenizer.json`.

    A model that gives a vector a token is averaged over the tokens; one that gives a vector a text is taken as it is.
    """

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Raises ConfigError when the folder holds no such model."""
        model, tokenizer = folder / "model.onnx", folder / "tokenizer.json"
        for path in (model, tokenizer):
            if not path.is_file():
                raise ConfigError(
                    f"The embedder folder {folder} has no {path.name}; set drift.embedder to a folder with "
                    "model.onnx and tokenizer.json."
                )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            self._tokenizer: Any = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # both libraries raise bare Exceptions for a file that they cannot read
            raise ConfigError(f"The embedder in {folder} cannot be loaded: {' '.join(str(error).split())}.") from error
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.no_padding()
        self._inputs = {one.name for one in self._session.get_inputs()}
        if "input_ids" not in self._inputs:
            raise ConfigError(f"{model} has no input 'input_ids' (but {', '.join(sorted(self._inputs))}).")
        self.id = f"onnx:{_digest(folder)}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        # Texts of like length share a batch, so that little of it is padding.
        encoded = [one.ids for one in self._tokenizer.encode_batch_fast(list(texts))]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found: dict[int, Vectors] = {}
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            found.update(zip(batch, self._run([encoded[i] for i in batch]), strict=True))
        return np.stack([found[i] for i in range(len(encoded))]) if found else np.zeros((0, 0), np.float32)

    def _run(self, batch: Sequence[Sequence[int]]) -> Vectors:
        width = max(1, *(len(ids) for ids in batch), 1)
        ids = np.zeros((len(batch), width), np.int64)
        mask = np.zeros((len(batch), width), np.int64)
        for row, found in enumerate(batch):
            ids[row, : len(found)] = found
            mask[row, : len(found)] = 1
        fed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        outputs = self._session.run(None, {name: value for name, value in fed.items() if name in self._inputs})
        output = np.asarray(outputs[0], dtype=np.float32)
        if output.ndim == 2:
            return output
        weights = mask[:, :, None].astype(np.float32)
        return np.asarray((output * weights).sum(1) / np.maximum(weights.sum(1), 1.0), dtype=np.float32)


class Remembered:
    """Asks another embedder only for texts that are new: windows overlap, so a check needs most of them again.

    The newest 64 MiB of vectors are kept, by digests of their texts.
    """

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self._known: dict[bytes, Vectors] = {}

    @property
    def id(self) -> str:
        return self._inner.id

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector a text, shape [n, d]; raises what the other embedder raises."""
        keys = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        before = self._inner.id
        vectors = self._inner.embed(list(new.values()))
        if self._inner.id != before:
            # Another model answers under the same name: what is remembered does not compare with its vectors.
            self._known, new = {}, dict(zip(keys, texts, strict=True))
            vectors = self._inner.embed(list(new.values()))
        if not keys:
            return vectors
        found = self._known | dict(zip(new, vectors, strict=True))
        most = _REMEMBERED_BYTES // found[keys[0]].nbytes
        self._known = dict(islice(found.items(), max(0, len(found) - most), None))
        return np.stack([found[key] for key in keys])


def build_embedder(settings: Settings) -> Embedder | None:
    """The embedder that the settings name, or the base model's own.

    None, with a line in the log that says why, where it cannot be used: the other detectors go on without it.
    """
    drift = settings.drift
    try:
        if drift.embedder is None:
            return Remembered(OnnxEmbedder(_base_embeddings(settings), threads=drift.threads))
        if drift.embedder.startswith(("http://", "https://")):
            return Remembered(UrlEmbedder(drift.embedder, drift.embedder_model))
        return Remembered(OnnxEmbedder(Path(drift.embedder).expanduser(), threads=drift.threads))
    except ConfigError as error:
        _log.error("Drift goes without its embedding detector: %s", error.message)
        return None


def _base_embeddings(settings: Settings) -> Path:
    folder = model_folder(settings.model)
    if folder is None:
        raise ConfigError(f"The base model {settings.model!r} is no folder here; set drift.embedder to an ONNX folder.")
    return export_token_embeddings(folder, settings.state_dir / "embedder")


def _digest(folder: Path) -> str:
    """SHA-256 (16 hex digits) over the files that make up an ONNX encoder."""
    total = sha256()
    for name in _FILES:
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                total.update(f"{name}\0{file_digest(file, 'sha256').hexdigest()}\0".encode())
    return total.hexdigest()[:16]
