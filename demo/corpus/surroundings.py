"""What stands around the core of a request: greetings, frames, side remarks, details and thanks, by split."""

from dataclasses import dataclass

from demo.corpus.model import Split


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Patterns by their place in a request."""

    openers: tuple[str, ...]
    introductions: tuple[str, ...]
    frames: tuple[str, ...]
    remarks: tuple[str, ...]
    closers: tuple[str, ...]
    details: dict[str, tuple[str, ...]]


TRAIN = Surroundings(
    openers=(
        "(hi|hello|hey) [there|team|everyone]",
        "good (morning|day|afternoon)",
        "(hello|hi), [a] quick question",
        "sorry to (bother|disturb) you",
        "I (have|got) a (question|problem)",
    ),
    introductions=("this is {name}", "my name is {name}", "{name} here", "I am {name}"),
    frames=(
        "{ask}",
        "please {ask}",
        "(can|could) you [please] {ask}",
        "I (want|need|would like|have) to {ask}",
        "how (do|can) I {ask}",
        "(help|let) me {ask}",
        "is it possible to {ask}",
        "I am trying to {ask}",
        "I wish to {ask}",
        "what must I do to {ask}",
    ),
    remarks=(
        "I (tried|looked at) the (app|site) already",
        "I am a (long time|loyal|new) customer",
        "my (wife|husband|son|daughter|boss) asked me",
        "I could not find it (on the site|in the app)",
        "I am in a hurry",
        "it is for my (mother|brother|company)",
        "I wrote to you (last week|yesterday) already",
    ),
    closers=(
        "(thanks|thank you) [very much|a lot]",
        "please (help|answer|reply) [soon]",
        "cheers",
        "any help is welcome",
        "(waiting for|hope to get) your (answer|reply)",
        "it is urgent",
    ),
    details={
        "name": ("my name is {name}", "this is {name}", "{name} is my name", "I am {name}"),
        "order": ("order {order}", "the order number is {order}", "it is about order {order}", "my order is {order}"),
        "product": ("it is the {product}", "it is about a {product}", "I bought the {product}"),
        "amount": ("I paid {amount}", "the price was {amount}", "it cost {amount}"),
        "city": ("I live in {city}", "I am from {city}", "my shop is in {city}"),
        "day": ("it was on {day}", "I ordered on {day}", "the date was {day}"),
    },
)

HELD = Surroundings(
    openers=("good evening [everyone]", "hello, sorry to bother you", "hey, I have a quick question", "dear team"),
    introductions=("hello from {name}", "I am called {name}", "you are talking to {name}"),
    frames=(
        "would you [please] {ask}",
        "what do I do to {ask}",
        "I hope to {ask}",
        "is there a way to {ask}",
        "I was told to {ask}",
    ),
    remarks=("my brother told me to write", "the app was no help", "I am (a bit|really) lost", "I wrote yesterday"),
    closers=("many thanks", "thanks for your help", "I hope you can help", "please answer today"),
    details={
        "name": ("you can call me {name}", "the name is {name}"),
        "order": ("the number of my order is {order}", "I mean order {order}"),
        "product": ("the item is the {product}", "I mean the {product}"),
        "amount": ("I have paid {amount} for it", "the cost was {amount}"),
        "city": ("I am in {city}", "my home is in {city}"),
        "day": ("I bought it on {day}", "the day was {day}"),
    },
)


def surroundings(split: Split) -> Surroundings:
    """Give the surroundings that this split may use."""
    return TRAIN if split is Split.TRAIN else HELD
