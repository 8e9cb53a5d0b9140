"""Adapters merged into one by PEFT, without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel

from retrain_jobs.base import Base
from service.core.errors import Conflict
from service.core.merging import Merge

NAME = "default"


def merged(base: Base, folders: Sequence[str], asked: Merge, *, seed: int) -> Any:
    """The PEFT model with the merged adapter alone, in evaluation mode; `seed` decides what DARE drops.

    Raises Conflict where PEFT cannot merge these adapters.
    """
    names = [f"parent-{number}" for number in range(len(folders))]
    model = PeftModel.from_pretrained(base.model, folders[0], adapter_name=names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        model.load_adapter(folder, adapter_name=name)
    for name in names:
        # The scale is in the weights from now on.
        model.peft_config[name].use_rslora = False
    torch.manual_seed(seed)
    try:
        model.add_weighted_adapter(
            names, list(asked.weights), NAME, combination_type=str(asked.method), density=asked.density,
            svd_full_matrices=False,
        )  # fmt: skip
    except (ValueError, NotImplementedError) as error:
        raise Conflict(f"These adapters cannot be merged: {error}", code="no_merge") from error
    model.set_adapter(NAME)
    for name in names:
        model.delete_adapter(name)
    # The parents' say a digest, which PEFT would look for on the hub when the adapter is saved.
    model.peft_config[NAME].base_model_name_or_path = base.model.name_or_path
    return model.eval()
