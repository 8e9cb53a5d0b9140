"""Ways to train an adapter, one readable file each with its YAML in `configs/`."""
