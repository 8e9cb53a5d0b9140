"""`make demo`: a day of a support desk in minutes, on a real engine.

Exit code 0 only if quality recovered and no request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from demo.base_model import CACHE, ensure_base_model
from demo.desk import golden_set, support_desk
from demo.player import Player
from demo.screen import plain_line, screen, show_report
from demo.stage import ALIAS, running, write_stage
from demo.story import Outcome, Plot, tell
from demo.story import Progress as StoryProgress
from service.core.errors import TrimtabError
from service.processes import check_port_free

RATE = 10.0
FEEDBACK_RATIO = 0.9
MAX_TOKENS = 48
PLOT = Plot(ALIAS, reference_size=300, current_size=100, judged=400, novel_ratio=0.5, patience_s=400.0)


def main() -> None:
    args = _arguments()
    console = Console()
    try:
        outcome = asyncio.run(_demo(args, console))
    except TrimtabError as error:
        console.print(
            f"[red]The demo failed:[/red] {error.message}\nLogs: {args.folder / 'state' / 'logs'}", soft_wrap=True
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if outcome.recovered else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="trimtab demo", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path(".trimtab/demo"), help="where it keeps everything (made anew)"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the base model is kept")
    parser.add_argument("--port", type=int, default=8080, help="the service's port; the next two are used as well")
    parser.add_argument("--seed", type=int, default=7, help="of the customers")
    parser.add_argument("--keep", action="store_true", help="keep serving after the report, until Ctrl-C")
    return parser.parse_args()


async def _demo(args: argparse.Namespace, console: Console) -> Outcome:
    for port in range(args.port, args.port + 3):
        check_port_free("127.0.0.1", port, "--port")
    started = time.monotonic()
    with Progress(TextColumn("base model"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bar:
        task = bar.add_task("looking into the cache", total=1.0)
        model = ensure_base_model(args.cache, lambda share, line: bar.update(task, completed=share, description=line))
        bar.update(task, completed=1.0, description=model.name)
    config = write_stage(args.folder, model, golden_set(args.seed), port=args.port)
    url = f"http://127.0.0.1:{args.port}"
    with console.status("starting the engine, the gateway, the controller and the drift worker"):
        service = running(config, url)
        await service.__aenter__()
    try:
        console.print(f"ready after {time.monotonic() - started:.0f} s; console: {url}/console")
        player = Player(
            url, ALIAS, support_desk, rate=RATE, feedback_ratio=FEEDBACK_RATIO, max_tokens=MAX_TOKENS, seed=args.seed
        )
        outcome = await _play(player, url, console)
        show_report(console, outcome, url)
        console.print(f"whole demo: {time.monotonic() - started:.0f} s")
        (args.folder / "report.json").write_text(json.dumps(asdict(outcome), indent=2), "utf-8")
        if args.keep or (sys.stdin.isatty() and console.is_terminal):
            console.print(f"still serving; open {url}/console, end with Ctrl-C")
            await _until_interrupted()
        else:
            console.print(f"look around again: trimtab up --config {config}", soft_wrap=True)
        return outcome
    finally:
        await service.__aexit__(None, None, None)


async def _play(player: Player, url: str, console: Console) -> Outcome:
    stop = asyncio.Event()
    progress = StoryProgress()
    playing = asyncio.create_task(player.play(stop))
    drawing = asyncio.create_task(_draw(player, progress, console))
    try:
        return await tell(PLOT, player, url, progress)
    finally:
        stop.set()
        drawing.cancel()
        await asyncio.gather(playing, drawing, return_exceptions=True)


async def _draw(player: Player, progress: StoryProgress, console: Console) -> None:
    if not console.is_terminal:
        while True:
            console.print(plain_line(progress, player), highlight=False, soft_wrap=True)
            await asyncio.sleep(5.0)
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            live.update(screen(PLOT, player, progress))
            await asyncio.sleep(0.25)


async def _until_interrupted() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return


if __name__ == "__main__":
    main()
