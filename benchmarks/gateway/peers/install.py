"""Where peers live: `.cache/peers`, an environment for each, made on first use with the versions of its lock file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

CACHE = Path(".cache/peers")
LOCKS = Path(__file__).parent


class NotInstalled(Exception):
    """A peer could not be installed here; the message is the installer's own reason."""


def environment(name: str, locks: Path = LOCKS) -> Path:
    """The Python of an environment with what `<name>.lock` in the folder `locks` lists and nothing else.

    Raises:
        NotInstalled: pip could not.
    """
    lock = locks / f"{name}.lock"
    folder = CACHE / f"{name}-{sha256(lock.read_bytes()).hexdigest()[:12]}"
    done = folder / ".installed"
    python = folder.absolute() / "bin" / "python"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing {name} into {folder}", file=sys.stderr, flush=True)
        run([sys.executable, "-m", "venv", str(folder)])
        run([str(python), "-m", "pip", "install", "-q", "--no-deps", "-r", str(lock)])
        done.touch()
    return python


def debian_program(name: str) -> Path:
    """A program of the Debian package of the same name: the installed one, or unpacked here without root's rights.

    Raises:
        NotInstalled: it is not there and apt cannot fetch it.
    """
    installed = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if installed is not None:
        return Path(installed)
    folder = CACHE / name
    unpacked = folder.absolute() / "usr" / "sbin" / name
    if not unpacked.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"unpacking {name} into {folder}", file=sys.stderr, flush=True)
        run(["apt-get", "download", "-q", name], folder)
        for package in folder.glob("*.deb"):
            run(["dpkg-deb", "-x", package.name, "."], folder)
    return unpacked


def run(argv: list[str], folder: Path | None = None) -> None:
    try:
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotInstalled(f"{argv[0]}: {error.strerror}") from error
    if done.returncode:
        raise NotInstalled(" ".join(f"{done.stdout} {done.stderr}".split())[-300:])
