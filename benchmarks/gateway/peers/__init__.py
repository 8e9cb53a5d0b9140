"""The gateways that ours is compared with; each is installed on first use, into a place of its own."""
