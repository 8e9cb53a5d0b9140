"""The loop as a whole: how soon quality is back, what clients feel meanwhile, how soon gateways follow a decision."""
