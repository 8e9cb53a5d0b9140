"""The values that fill `{slot}`s: half invented, so that a model must copy and cannot remember."""

from random import Random

from demo.corpus.model import Split


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_NAMES = {
    Split.TRAIN: _words(
        "Anna Bruno Carla David Elena Felix Greta Henrik Irene Jonas Katya Luca Maria Nils Olga Pablo Quentin Rosa "
        "Stefan Tara Ulrich Vera Walter Yusuf Zoe Amara Bela Chidi Dalia Emre Fatima Goran Hana Ivan Jelena Kofi Lena "
        "Mateo Nadia Oscar Priya Rafael Sana Tomas Ursula Viktor Wanda Xenia Yara Zoran"
    ),
    Split.HELD: _words("Agnes Boris Clara Dmitri Esther Fabio Gloria Hugo Ines Joris Kira Leon Marta Noah Petra Rune"),
}
_CITIES = {
    Split.TRAIN: _words(
        "Lyon Porto Turin Bergen Gdansk Bilbao Ghent Malmo Graz Split Cork Tampere Leipzig Bologna Seville Basel "
        "Nantes Utrecht Brno Varna Kaunas Patras Aarhus Dresden Genoa Leeds Lille Lugano Metz Murcia Ostrava Tartu"
    ),
    Split.HELD: _words("Bremen Krakow Verona Bristol Odense Toulouse Granada Linz Rennes Uppsala"),
}
_ADJECTIVES = _words("blue red green black white small large folding wooden steel cotton garden travel kids")
_NOUNS = {
    Split.TRAIN: _words(
        "kettle lamp chair jacket camera printer backpack table headphones blender tent mirror keyboard carpet watch "
        "toaster bicycle helmet sofa monitor"
    ),
    Split.HELD: _words("kettle camera tent sofa printer lamp watch jacket"),
}
_MONTHS = _words("January February March April May June July August September October November December")
_STARTS = _words(
    "Ba Be Bo Da De Do Fa Fe Ga Go Ha He Ja Ka Ke La Le Lo Ma Me Mo Na Ne Pa Pe Ra Re Ro Sa Se Ta Te Va Ve"
)
_MIDDLES = _words("ba be da di fa ga la li lo ma mi na ne ni ra ri ro sa sha ta ti va vi")
_NAME_ENDS = _words("n na r ra s l la ya k m")
_CITY_ENDS = _words("burg ford stad ton ville wick mouth haven bridge field")

SLOTS = ("name", "order", "product", "amount", "city", "day")
"""Every slot, in the order in which an extraction lists them."""


def value(slot: str, split: Split, rng: Random) -> str:
    """Draw a value for the slot; held-out names and cities never occur in training."""
    match slot:
        case "name":
            return _name(_NAMES[split], _NAME_ENDS, split, rng)
        case "city":
            return _name(_CITIES[split], _CITY_ENDS, split, rng)
        case "product":
            return _product(split, rng)
        case "order":
            return f"{rng.choice('ABCDHKNRT')}{rng.randrange(1000, 10000)}"
        case "amount":
            return f"{rng.randrange(3, 400)}.{rng.choice((0, 20, 25, 49, 50, 75, 90, 95, 99)):02d}"
        case "day":
            return f"{rng.randrange(1, 29)} {rng.choice(_MONTHS)}"
        case "flight":
            return f"{rng.choice(('TT', 'HB', 'QS'))}{rng.randrange(100, 1000)}"
    raise ValueError(f"unknown slot {slot!r}")


def _name(known: tuple[str, ...], ends: tuple[str, ...], split: Split, rng: Random) -> str:
    if split is Split.HELD or rng.random() < 0.4:
        return rng.choice(known)
    while True:
        middles = "".join(rng.choice(_MIDDLES) for _ in range(rng.randrange(2)))
        name = rng.choice(_STARTS) + middles + rng.choice(ends)
        if len(name) > 3 and name not in _NAMES[Split.HELD] and name not in _CITIES[Split.HELD]:
            return name


def _product(split: Split, rng: Random) -> str:
    """Join an adjective and a noun; one pair in five is kept for the held-out split."""
    while True:
        adjective, noun = rng.choice(_ADJECTIVES), rng.choice(_NOUNS[split])
        held = (_ADJECTIVES.index(adjective) + len(noun) + ord(noun[0])) % 5 == 0
        if held is (split is Split.HELD):
            return f"{adjective} {noun}"
