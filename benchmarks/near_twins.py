"""Near duplicates in CLINC150, exactly and by MinHash: `python -m benchmarks.near_twins`.

Ours beside datasketch's MinHash LSH, which is no dependency: `pip install datasketch` where this shall be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from retrain_jobs.likeness import NearIndex

LIKE = 0.9
SHINGLE = 5

Finder = Callable[[list[str]], set[int]]


def ours(texts: list[str]) -> set[int]:
    """The texts with a twin before them."""
    index, found = NearIndex(among=texts, threshold=LIKE, size=SHINGLE), set()
    for number, text in enumerate(texts):
        if text in index:
            found.add(number)
        else:
            index.add(text)
    return found


def by_minhash(permutations: int) -> Finder:
    def find(texts: list[str]) -> set[int]:
        from datasketch import MinHash, MinHashLSH

        index, found = MinHashLSH(threshold=LIKE, num_perm=permutations), set()
        for number, text in enumerate(texts):
            sketch = MinHash(num_perm=permutations)
            sketch.update_batch([text[at : at + SHINGLE].encode() for at in range(max(1, len(text) - SHINGLE + 1))])
            if index.query(sketch):
                found.add(number)
            else:
                index.insert(str(number), sketch)
        return found

    return find


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clinc150"))
    options = parser.parse_args()
    every = [text for text, _ in json.loads((options.data / "data_full.json").read_text("utf-8"))["train"]]
    Random(0).shuffle(every)
    for size in (2000, 10_000):
        texts = [*every[:size], *(f"{text} x" for text in every[: size // 10])]
        exact: set[int] = set()
        for name, find in (("ours", ours), ("MinHash 64", by_minhash(64)), ("MinHash 128", by_minhash(128))):
            began = time.perf_counter()
            try:
                found = find(texts)
            except ImportError:
                print("datasketch is not installed: nothing to compare with")
                break
            took = time.perf_counter() - began
            exact = exact or found
            told = f"{len(found)} twins, {len(exact - found)} missed, {len(found - exact)} are none"
            print(f"{name}: {len(texts)} texts in {took:.2f} s: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
