"""The recipe beside TRL, on models made on the spot."""
