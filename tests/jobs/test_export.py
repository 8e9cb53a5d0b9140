"""An exported adapter computes what PEFT computes, by each format's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrain_jobs import export as exporting
from retrain_jobs.export import Format, export
from retrain_jobs.publish import save_adapter
from service.core.errors import BadRequest, Conflict
from service.drivers.base_model import base_digest
from tests.jobs.tiny import with_a_window

torch = pytest.importorskip("torch")

IDS = [[7, 8, 9, 10, 11, 12]]


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for weight in peft.parameters():
            if weight.requires_grad:
                weight.normal_(0, 0.2)
    return save_adapter(peft, tmp_path / "adapter", base_name=f"sha256:{base_digest(str(tiny_base))}")


def expected(base: Path, adapter: Path) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(torch.tensor(IDS)).logits
    return logits


def test_merged_and_peft_compute_what_the_adapter_does(tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    want = expected(tiny_base, adapter)
    assert export(str(tiny_base), adapter, Format.MERGED, tmp_path / "merged") is None
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(whole(torch.tensor(IDS)).logits, want, rtol=1e-3, atol=1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    export(str(tiny_base), adapter, Format.PEFT, tmp_path / "peft")
    torch.testing.assert_close(expected(tiny_base, tmp_path / "peft"), want)


def test_onnxruntime_computes_what_pytorch_does(tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    import onnxruntime

    worst = export(str(tiny_base), adapter, Format.ONNX, tmp_path / "onnx")
    assert worst is not None
    assert 0.0 < worst < exporting.TOLERANCE
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    ids = torch.tensor(IDS).numpy()
    logits = session.run(None, {"input_ids": ids, "attention_mask": torch.ones(1, 6, dtype=torch.long).numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(logits), expected(tiny_base, adapter), rtol=1e-3, atol=1e-3)


def test_a_window_is_exported_too(tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    import onnxruntime

    base = with_a_window(tiny_base, tmp_path / "base")
    config = adapter / "adapter_config.json"
    digests = (base_digest(str(folder)) for folder in (tiny_base, base))
    config.write_text(config.read_text().replace(*digests))
    export(str(base), adapter, Format.ONNX, tmp_path / "onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    ids = torch.tensor(IDS).numpy()
    logits = session.run(None, {"input_ids": ids, "attention_mask": torch.ones(1, 6, dtype=torch.long).numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(logits), expected(base, adapter), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(torch.from_numpy(logits), expected(tiny_base, adapter), 1e-3, 1e-3)


def test_what_does_not_agree_or_fit_leaves_nothing(
    tiny_base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "TOLERANCE", 0.0)
    with pytest.raises(Conflict, match="a logit differs by"):
        export(str(tiny_base), adapter, Format.ONNX, tmp_path / "out" / "onnx")
    assert list((tmp_path / "out").iterdir()) == []

    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace("sha256:", "sha256:00"))
    with pytest.raises(Conflict, match="for another base model"):
        export(str(tiny_base), adapter, Format.MERGED, tmp_path / "out" / "merged")
    with pytest.raises(BadRequest, match="is not empty"):
        export(str(tiny_base), adapter, Format.PEFT, adapter)
    assert list((tmp_path / "out").iterdir()) == []
