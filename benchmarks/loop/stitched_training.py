"""TRL's SFTTrainer and PEFT's LoRA as they come: `python -m benchmarks.loop.stitched_training FILE MODEL OUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(file: Path, model: Path, out: Path) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = json.loads(file.read_text("utf-8"))["rows"]
    dataset = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "completion": [{"role": "assistant", "content": row["target"]}],
            }
            for row in rows
        ]
    )
    config = SFTConfig(output_dir=str(out), report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True)
    trainer = SFTTrainer(str(model), args=config, train_dataset=dataset, peft_config=LoraConfig(task_type="CAUSAL_LM"))
    trainer.train()
    trainer.model.save_pretrained(out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
