"""Trimtab: one base model, steered by LoRA adapters that retrain, prove and promote themselves."""
