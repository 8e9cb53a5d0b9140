"""A base model as it was before PEFT wrapped its layers."""

from __future__ import annotations

from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer


def take_out_lora(model: Any) -> None:
    """PEFT's own way needs its model, which a training that was given up does not return."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(module, name, child.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
