"""An alias swapped under load on a real vLLM: no request fails and every reply is of the version that it names.

Half a minute and vLLM's start; in `make soak` a thousand swaps. `python -m benchmarks.hot_swap` has the speed figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hot_swap import engine, theatre

pytestmark = [pytest.mark.acceptance, pytest.mark.soak]


async def test_every_reply_is_of_the_version_that_it_names(tmp_path: Path, scale) -> None:
    swaps, adapters = scale(24, 1000), scale(3, 8)
    with engine(tmp_path, adapters) as (url, model, made):
        async with theatre(tmp_path, url, model, made) as stage:
            played = await stage.play(swaps, period_s=scale(0.4, 1.0))
            control = await stage.same_name_reload()
    seen, caught = played.verdicts(stage.known), control.verdicts(stage.known)
    print(f"\n{len(played.swaps)} swaps: {dict(seen)}; a reload under the same name: {dict(caught)}")
    assert set(seen) == {"right"}
    assert len(played.swaps) == swaps
    assert {reply.adapter for _, reply in played.asked} == set(stage.known.replies)
    assert caught["no version"] > 0, "a reload under the same name was not noticed"
