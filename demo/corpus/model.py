"""The words of the corpus: intents, phrasings, tasks, splits and examples."""

from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    """What the desk asks of the model; the value goes into the system message."""

    INTENT = "intent"
    EXTRACT = "extract"
    REPLY = "reply"
    ECHO = "echo"


class Split(StrEnum):
    """Which phrasings, names and places an example may use; the two sets are disjoint."""

    TRAIN = "train"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Phrases:
    """Patterns of one intent: `asks` fit after "I want to", `says` stand alone."""

    asks: tuple[str, ...]
    says: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing that customers want, its phrasings by split, and the desk's reply.

    A reply that holds a slot is given only when the customer named it; else the desk asks for it.
    """

    name: str
    train: Phrases
    held: Phrases
    reply: str = ""

    def phrases(self, split: Split) -> Phrases:
        """Give the phrasings that this split may use."""
        return self.train if split is Split.TRAIN else self.held


@dataclass(frozen=True, slots=True)
class Example:
    """One request to the desk and the reply that it should get."""

    task: Task
    intent: str
    text: str
    target: str

    @property
    def messages(self) -> tuple[dict[str, str], ...]:
        """The request as OpenAI chat messages, without the reply."""
        return (
            {"role": "system", "content": self.task.value},
            {"role": "user", "content": self.text},
        )
