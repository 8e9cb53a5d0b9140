"""The demo's base model, trained once and cached: python -m demo.base_model [--out DIR]."""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from demo import training
from demo.corpus import Split, taught
from demo.evaluation import Report, evaluate
from demo.tokenizer import train_tokenizer

SECONDS = 1200.0
"""What training may take on a machine that does other things, too: a model that was cut off plays no part well. Two
free cores need 100 s with AVX-512 and 310 s without."""

CACHE = Path(os.environ.get("TRIMTAB_CACHE", ".cache/trimtab"))

TOKENIZER_EXAMPLES = 8000
REPORT = "report.json"


def ensure_base_model(cache_dir: Path = CACHE, progress: training.Progress | None = None) -> Path:
    """Give the directory of the trained model, training it first if this code has not done so before."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    directory = cache_dir / f"base-{fingerprint()}"
    with (cache_dir / "base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            make_base_model(directory, SECONDS, progress or (lambda share, line: None))
    return directory


def make_base_model(directory: Path, seconds: float, progress: training.Progress) -> None:
    """Train, save in Hugging Face's format and judge; the directory appears only when it is whole."""
    recipe = training.Recipe()
    began = time.perf_counter()
    examples = taught("tokenizer", TOKENIZER_EXAMPLES, Split.TRAIN)
    texts = (text for example in examples for text in (example.text, example.target))
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    model = training.train(recipe, tokenizer, seconds, progress)
    trained_s = time.perf_counter() - began

    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".draft-"))
    try:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        progress(1.0, "judging on held-out requests")
        figures = {
            "parameters": model.num_parameters(),
            "trained_s": round(trained_s, 1),
            "recipe": asdict(recipe),
            **asdict(evaluate(draft)),
        }
        (draft / REPORT).write_text(json.dumps(figures, indent=2) + "\n")
        draft.chmod(0o755)
        os.rename(draft, directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_report(directory: Path) -> Report:
    """Read the figures that were measured when the model was made."""
    figures = json.loads((directory / REPORT).read_text())
    return Report(figures["exact_match"], figures["novel_exact_match"], figures["novelty_auroc"])


def fingerprint() -> str:
    """Give 12 hex digits that change with any code that shapes the model."""
    here = Path(__file__).parent
    sources = [*sorted((here / "corpus").glob("*.py"))]
    sources += [here / f"{name}.py" for name in ("base_model", "lessons", "muon", "tokenizer", "training")]
    sources += [here.parent / "retrain_jobs" / "recipes" / f"{name}.py" for name in ("order", "packed", "spared")]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def main() -> None:
    """Train the model with a progress bar, and print its figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--out", type=Path, help="model directory to create; without it, the demo's, if it is not there"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of the training into --out")
    options = parser.parse_args()
    if options.out is not None and options.out.exists():
        parser.error(f"{options.out} exists; remove it or choose another --out")
    columns = (TextColumn("base model"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("preparing", total=1.0)

        def progress(share: float, line: str) -> None:
            bar.update(task, completed=share, description=line)

        if options.out is None:
            directory = ensure_base_model(progress=progress)
        else:
            directory = options.out
            make_base_model(directory, options.seconds, progress)
    print((directory / REPORT).read_text(), end="")


if __name__ == "__main__":
    main()
