"""Embedders: the base model's own token embeddings, any ONNX folder, and models that offer neither."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from service.core.errors import ConfigError
from service.monitor.embedders import OnnxEmbedder, build_embedder
from service.monitor.token_embeddings import export_token_embeddings
from service.settings import DriftSettings, Settings
from tests.service.monitor.traffic import write_base_model, write_safetensors

TEXTS = ["where is my kettle", "", "refund", "book a flight from lisbon to osaka on monday " * 20]


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_vectors_are_means_of_the_models_whitened_token_embeddings(tmp_path: Path, dtype: str) -> None:
    weight = write_base_model(tmp_path / "model", dtype=dtype)
    embedder = OnnxEmbedder(export_token_embeddings(tmp_path / "model", tmp_path / "cache"), threads=1)
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    found = embedder.embed(TEXTS)
    assert (found.dtype, found.shape) == (np.float32, (4, 32))
    centred = weight - weight.mean(0)
    covariance = centred.T @ centred / len(weight)
    ridge = 0.1 * np.trace(covariance) / 32
    means = np.stack([centred[ids].mean(0) if ids else np.zeros(32) for ids in _token_ids(tokenizer)])
    # Whitening leaves the axes open, so that inner products are compared.
    expected = means @ np.linalg.inv(covariance + ridge * np.eye(32)) @ means.T
    np.testing.assert_allclose(found @ found.T, expected, atol=0.02)
    np.testing.assert_allclose(embedder.embed(TEXTS[::-1])[::-1], found, atol=1e-6)
    assert embedder.embed([]).shape[0] == 0


def _token_ids(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(text).ids[:256] for text in TEXTS]


def test_the_encoder_is_made_once_per_matrix_and_tokenizer(tmp_path: Path) -> None:
    write_base_model(tmp_path / "model")
    first = export_token_embeddings(tmp_path / "model", tmp_path / "cache")
    made_at = (first / "model.onnx").stat().st_mtime_ns
    assert export_token_embeddings(tmp_path / "model", tmp_path / "cache") == first
    assert (first / "model.onnx").stat().st_mtime_ns == made_at
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]
    tokenizer = tmp_path / "model" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    other = export_token_embeddings(tmp_path / "model", tmp_path / "cache")
    assert other != first
    assert OnnxEmbedder(other, threads=1).id != OnnxEmbedder(first, threads=1).id


def test_token_ids_beyond_the_matrix_do_no_harm(tmp_path: Path) -> None:
    write_base_model(tmp_path / "model")
    few = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    write_safetensors(tmp_path / "model" / "model.safetensors", {"wte.weight": ("F32", few)})
    embedder = OnnxEmbedder(export_token_embeddings(tmp_path / "model", tmp_path / "cache"), threads=1)
    found = embedder.embed(["hello", "zebra"])
    assert found.shape == (2, 4)
    assert np.isfinite(found).all()


def test_a_matrix_that_does_not_vary_gives_vectors_that_do_not(tmp_path: Path) -> None:
    write_base_model(tmp_path / "model")
    write_safetensors(tmp_path / "model" / "model.safetensors", {"wte.weight": ("F32", np.ones((500, 4), np.float32))})
    embedder = OnnxEmbedder(export_token_embeddings(tmp_path / "model", tmp_path / "cache"), threads=1)
    np.testing.assert_allclose(embedder.embed(["hello"]), np.zeros((1, 4)), atol=1e-2)


def test_an_onnx_folder_with_a_vector_a_token_is_averaged_over_the_tokens(tmp_path: Path) -> None:
    write_base_model(tmp_path / "model")
    folder = tmp_path / "encoder"
    folder.mkdir()
    (tmp_path / "model" / "tokenizer.json").rename(folder / "tokenizer.json")
    weight = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in names]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", "t", 6])
    nodes = [helper.make_node("Gather", ["weight", "input_ids"], ["last_hidden_state"])]
    graph = helper.make_graph(nodes, "encoder", inputs, [output], [numpy_helper.from_array(weight, "weight")])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(folder / "model.onnx")
    )
    embedder = build_embedder(Settings(drift=DriftSettings(embedder=str(folder))))
    assert embedder is not None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, vector in zip(TEXTS, embedder.embed(TEXTS), strict=True):
        ids = tokenizer.encode(text).ids[:256]
        np.testing.assert_allclose(vector, weight[ids].mean(0) if ids else np.zeros(6), atol=1e-5)


def test_a_model_that_is_not_on_this_machine_goes_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert build_embedder(Settings(model="some/hub-id", state_dir=tmp_path)) is None
    assert "without its embedding detector" in caplog.text
    assert "'some/hub-id' is no folder here; set drift.embedder" in caplog.text


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda model: (model / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda model: (model / "tokenizer.json").write_text("{}"), "cannot be loaded"),
        (lambda model: (model / "model.safetensors").write_bytes(b"junk" * 9), "model.safetensors cannot be read"),
        (lambda model: (model / "model.safetensors").unlink(), "holds no token embeddings"),
    ],
)  # fmt: skip
def test_a_broken_model_goes_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, break_it: object, told: str
) -> None:
    write_base_model(tmp_path / "model")
    assert callable(break_it)
    break_it(tmp_path / "model")
    with caplog.at_level(logging.WARNING):
        assert build_embedder(Settings(model=str(tmp_path / "model"), state_dir=tmp_path / "state")) is None
    assert told in caplog.text


def test_a_matrix_of_another_type_is_refused(tmp_path: Path) -> None:
    write_base_model(tmp_path / "model", dtype="F64")
    with pytest.raises(ConfigError, match="are F64; F32, F16 and BF16 can be read"):
        export_token_embeddings(tmp_path / "model", tmp_path / "cache")


def test_an_embedder_that_was_asked_for_and_is_missing_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert build_embedder(Settings(drift=DriftSettings(embedder=str(tmp_path / "nowhere")))) is None
    assert "has no model.onnx; set drift.embedder" in caplog.text
    assert build_embedder(Settings(drift=DriftSettings(embedder="http://e/v1"))) is None
    assert "drift.embedder_model must name the model" in caplog.text


def test_onnx_keeps_to_its_threads(base_model: Path, tmp_path: Path) -> None:
    made = OnnxEmbedder(export_token_embeddings(base_model, tmp_path), threads=3)
    options = made._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
