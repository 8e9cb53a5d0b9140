"""How often a long command speaks, at a terminal and into a file."""

from __future__ import annotations

import io

import pytest

from service import terminal
from service.terminal import Sparingly, StatusLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_comes_too_soon_is_not_said() -> None:
    said: list[str] = []
    times = iter([0.0, 1.0, 5.0, 6.0, 9.9, 10.0])
    say = Sparingly(said.append, 5.0, lambda: next(times))
    for line in "abcde":
        say(line)
    assert said == ["b", "e"]


def test_a_terminal_has_one_line_that_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "DRAW_EVERY_S", 0.0)
    stream = Terminal()
    status = StatusLine(stream)
    for line in ("step 1", "step 2"):
        status(line)
    status.close()
    assert stream.getvalue() == "\r\x1b[Kstep 1\r\x1b[Kstep 2\r\x1b[K"


def test_a_file_gets_whole_lines_and_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "LOG_EVERY_S", 0.0)
    stream = io.StringIO()
    status = StatusLine(stream)
    status("step 1")
    status("step 2")
    status.close()
    assert stream.getvalue() == "step 1\nstep 2\n"
