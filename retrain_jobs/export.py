"""`python -m retrain_jobs.export ADAPTER --format peft|merged|onnx --out FOLDER`: an adapter for use without Trimtab.

The ONNX model is run by onnxruntime beside PyTorch on the same tokens; where they do not agree nothing is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from retrain_jobs.base import load_base, prepare_process
from retrain_jobs.limits import one_line
from service.core.errors import BadRequest, Conflict
from service.drivers.adapter_files import CONFIG, read_adapter
from service.drivers.base_model import base_digest
from service.drivers.blobs import open_blobs
from service.settings import Settings, load_settings

TOLERANCE = 1e-3
"""The most that a logit of the ONNX model may differ from PyTorch's, both in float32."""

SHAPES = ((1, 5), (3, 24), (2, 64))
"""Of the token ids (rows x length) that both models are asked; the last row of each is padded on its right."""

MAX_LENGTH = 2048


class Format(StrEnum):
    PEFT = "peft"
    MERGED = "merged"
    ONNX = "onnx"


def export(model: str, adapter: Path, kind: Format, out: Path) -> float | None:
    """Write the adapter, a PEFT folder over the base `model`, into the new folder `out`.

    Returns:
        The largest difference of a logit between ONNX and PyTorch; None for the other formats.

    Raises:
        BadRequest: `out` is there and not empty.
        Conflict: the adapter is for another base model, or the ONNX model computes something else.
    """
    if out.exists() and any(out.iterdir()):
        raise BadRequest(f"{out} is not empty; name a new folder.")
    files = read_adapter(adapter)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".export-", dir=out.parent))
    try:
        found = None
        if kind is Format.PEFT:
            for name, data in files.items():
                (draft / name).write_bytes(data)
        else:
            _require_base(model, json.loads(files[CONFIG]))
            found = _write_whole(model, adapter, kind, draft)
        if out.exists():
            out.rmdir()
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return found


def _require_base(model: str, config: dict[str, Any]) -> None:
    """Adapters that a job made name their base by its digest."""
    wanted = str(config.get("base_model_name_or_path") or "")
    if wanted.startswith("sha256:") and wanted != f"sha256:{base_digest(model)}":
        raise Conflict(
            f"The adapter is for another base model ({wanted[:19]}) than {model}; set `model` to that one.",
            code="other_base",
        )


def _write_whole(model: str, adapter: Path, kind: Format, out: Path) -> float | None:
    """The base with the adapter folded into its weights, in float32, in which nothing of it is rounded away."""
    import torch
    from peft import PeftModel

    base = load_base(model, threads=torch.get_num_threads(), max_length=MAX_LENGTH)
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    whole = PeftModel.from_pretrained(base.model.float().cpu(), str(adapter)).merge_and_unload().eval()
    base.tokenizer.save_pretrained(out)
    if kind is Format.MERGED:
        whole.save_pretrained(out)
        return None
    whole.config.save_pretrained(out)
    return _write_onnx(whole, base.pad_id, out / "model.onnx")


def _write_onnx(model: Any, pad_id: int, path: Path) -> float:
    """Inputs `input_ids` and `attention_mask` (rows x length), output `logits` (rows x length x vocabulary)."""
    import onnxruntime
    import torch

    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    of_layers = "sliding_attention" in (getattr(config, "layer_types", None) or ())

    class Logits(torch.nn.Module):
        """Makes the masks itself: transformers' own way to make them cannot be traced."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            seen = attention_mask[:, None, None, :].bool()
            place = torch.arange(input_ids.shape[1])
            before = place[None, :] <= place[:, None]
            near = before if window is None else before & (place[None, :] > place[:, None] - window)
            whole, windowed = (
                torch.where(seen & allowed[None, None], 0.0, torch.finfo(torch.float32).min)
                for allowed in (before, near)
            )
            mask = {"full_attention": whole, "sliding_attention": windowed} if of_layers else windowed
            positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
            out = self.model(input_ids=input_ids, attention_mask=mask, position_ids=positions, use_cache=False)
            logits: torch.Tensor = out.logits
            return logits

    model.set_attn_implementation("eager")
    wrapped = Logits().eval()
    sizes = {0: "rows", 1: "length"}
    ids, mask = _asked(model.config.vocab_size, pad_id, *SHAPES[1])
    with torch.no_grad():
        torch.onnx.export(
            wrapped, (ids, mask), path, input_names=["input_ids", "attention_mask"], output_names=["logits"],
            dynamic_axes={"input_ids": sizes, "attention_mask": sizes, "logits": sizes}, opset_version=17, dynamo=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    beyond = () if window is None or window + 8 > MAX_LENGTH else ((1, window + 8),)
    for shape in (*SHAPES, *beyond):
        ids, mask = _asked(model.config.vocab_size, pad_id, *shape)
        with torch.no_grad():
            ours = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        theirs = torch.from_numpy(session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0])
        worst = max(worst, float((ours - theirs)[mask.bool()].abs().max()))
    if not worst <= TOLERANCE:
        raise Conflict(
            f"The ONNX model does not compute what PyTorch does: a logit differs by {worst:.3g}, and "
            f"{TOLERANCE:.0e} is allowed; use --format merged for this architecture.",
            code="onnx_differs",
        )
    return worst


def _asked(vocabulary: int, pad_id: int, rows: int, length: int) -> tuple[Any, Any]:
    import torch

    draw = torch.Generator().manual_seed(rows * 1000 + length)
    ids = torch.randint(0, vocabulary, (rows, length), generator=draw)
    mask = torch.ones_like(ids)
    ids[-1, length - 2 :] = pad_id
    mask[-1, length - 2 :] = 0
    return ids, mask


async def _fetched(settings: Settings, adapter: str) -> Path:
    """A registered adapter's files, on this machine; any other name is a folder's."""
    if "@" not in adapter or "/" in adapter:
        return Path(adapter)
    return Path(await open_blobs(settings.blobs_url, settings.state_dir / "cache").local(adapter))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="trimtab adapters export", description=__doc__)
    parser.add_argument("adapter", help="a registered adapter's name, or a PEFT folder")
    parser.add_argument("--format", type=Format, choices=list(Format), default=Format.PEFT)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: trimtab.yaml where there is one")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(given.config)
        prepare_process(settings.retrain.threads, settings.retrain.nice)
        folder = asyncio.run(_fetched(settings, given.adapter))
        worst = export(settings.model, folder, given.format, given.out)
    except Exception as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    told = "" if worst is None else f"; logits differ from PyTorch's by at most {worst:.1e} (allowed: {TOLERANCE:.0e})"
    print(f"{given.out}{told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
