"""A trained LoRA as files that depend on nothing but its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.drivers.adapter_files import CONFIG, WEIGHTS


def save_adapter(peft_model: Any, folder: Path, *, base_name: str) -> Path:
    """Write adapter_config.json and adapter_model.safetensors, and nothing else.

    Args:
        base_name: what the config names as its base, in place of this machine's path: the base's digest.
    """
    peft_model.save_pretrained(folder, safe_serialization=True, selected_adapters=["default"])
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    config["base_model_name_or_path"] = base_name
    config["target_modules"] = sorted(config["target_modules"])
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    for path in folder.iterdir():
        if path.name not in {CONFIG, WEIGHTS}:
            path.unlink()
    return folder
