"""The demo: a support desk that Trimtab can serve, spoil and repair on one laptop."""
