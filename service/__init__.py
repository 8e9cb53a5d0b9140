"""Trimtab: one base model, steered by LoRA adapters that retrain, prove and promote themselves."""

__version__ = "0.1.0"
