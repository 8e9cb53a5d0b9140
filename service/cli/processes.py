"""Commands that run a process until it is told to end."""

from __future__ import annotations

import os
import sys

import typer

from service.cli.options import PASSED_ON, Config, StateDir, run, settings_of

app = typer.Typer()


@app.command()
def up(config: Config = None, state_dir: StateDir = None) -> None:
    """Run everything on this machine: engine, gateway, controller and drift worker."""
    from service.up import run_up

    environment = {"TRIMTAB_STATE_DIR": str(state_dir)} if state_dir else {}
    run(run_up(settings_of(config, state_dir=state_dir), config, environment))


@app.command()
def serve(config: Config = None, state_dir: StateDir = None) -> None:
    """Run the gateway with the control API and the console."""
    from service.bootstrap import run_serve

    run(run_serve(settings_of(config, state_dir=state_dir)))


@app.command()
def controller(config: Config = None, state_dir: StateDir = None) -> None:
    """Run the reconciler that carries every cycle on."""
    from service.controller import run_controller

    run(run_controller(settings_of(config, state_dir=state_dir), config))


@app.command()
def monitor(config: Config = None, state_dir: StateDir = None) -> None:
    """Run the drift worker."""
    from service.bootstrap import run_monitor_process

    run(run_monitor_process(settings_of(config, state_dir=state_dir)))


@app.command()
def engine(config: Config = None, state_dir: StateDir = None) -> None:
    """Run and supervise one vLLM on this machine."""
    from service.bootstrap import run_engine_process

    run(run_engine_process(settings_of(config, state_dir=state_dir)))


@app.command(context_settings=PASSED_ON, add_help_option=False)
def demo(context: typer.Context) -> None:
    """Play a day of a support desk: serve, drift, retrain, promote. Options: see `trimtab demo --help`."""
    os.execv(sys.executable, [sys.executable, "-m", "demo", *context.args])
