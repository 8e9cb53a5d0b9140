"""How long the demo's base model takes to train, and what it has learned: `python -m benchmarks.base_model`."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.base_model import REPORT, SECONDS, make_base_model


def main() -> None:
    with TemporaryDirectory() as name:
        model = Path(name) / "base"
        make_base_model(model, SECONDS, lambda share, line: None)
        figures = json.loads((model / REPORT).read_text("utf-8"))
    print(f"{figures['parameters'] / 1e6:.2f} M parameters, trained in {figures['trained_s']:.0f} s (target 120)")
    shares = ", ".join(f"{task} {share:.1%}" for task, share in figures["exact_match"].items())
    print(f"exact match on held-out phrasings, names and numbers: {shares}; on novel intents ", end="")
    print(
        f"{figures['novel_exact_match']:.1%}; confidence tells novel requests with AUROC {figures['novelty_auroc']:.3f}"
    )


if __name__ == "__main__":
    main()
