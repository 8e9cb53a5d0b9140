"""The support desk's text: taught and novel requests with their targets, generated from a seed."""

from demo.corpus.generate import NOVEL, TASK_SHARES, TAUGHT, drill, example, novel, taught
from demo.corpus.model import Example, Intent, Phrases, Split, Task

__all__ = [
    "NOVEL",
    "TASK_SHARES",
    "TAUGHT",
    "Example",
    "Intent",
    "Phrases",
    "Split",
    "Task",
    "drill",
    "example",
    "novel",
    "taught",
]
