"""The gateway's speed with its peers in the same run: `make bench-gateway`; see docs/benchmarks.md."""
