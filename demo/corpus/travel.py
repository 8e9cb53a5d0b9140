"""Novel: the shop starts to sell flights, and customers ask about what the base model never learned."""

from demo.corpus.model import Intent, Phrases

TRAVEL = (
    Intent(
        "flight_book",
        Phrases(
            asks=(
                "(book|buy|reserve) a (flight|ticket) (to|for) {city} [on {day}]",
                "fly (to|from) {city} on {day}",
                "(find|get) a [cheap] flight (to|from) {city}",
            ),
            says=(
                "do you have [cheap] flights (to|from) {city} [on {day}]",
                "how much is a (flight|ticket) to {city} [on {day}]",
                "I need (two|three|four) seats on a plane to {city}",
                "what flights (go|leave) to {city} on {day}",
            ),
        ),
        Phrases(
            asks=("buy two tickets for a flight from {city}",),
            says=("which flights to {city} can I book [for {day}]", "I need a cheap ticket to fly to {city}"),
        ),
    ),
    Intent(
        "flight_cancel",
        Phrases(
            asks=(
                "cancel (my|the) (flight|booking|trip) [{flight}] [to {city}]",
                "(call off|drop) my (trip|flight) [to {city}]",
                "cancel the ticket for flight {flight}",
            ),
            says=(
                "I cannot (fly|travel) [to {city}] on {day}, cancel (it|my flight)",
                "I am (ill|sick) and must cancel (my|the) (trip|flight)",
                "what does it cost to cancel flight {flight}",
                "please cancel our tickets to {city}",
            ),
        ),
        Phrases(
            asks=("call off flight {flight}, I cannot travel",),
            says=("our trip to {city} will not happen, cancel the flight", "I must cancel my ticket to {city}"),
        ),
    ),
    Intent(
        "flight_change",
        Phrases(
            asks=(
                "(change|move|rebook) my flight [{flight}] [to {day}]",
                "fly (a day|a week) (later|earlier) [to {city}]",
                "(take|get) (a later|an earlier|another) flight [to {city}]",
            ),
            says=(
                "can I (move|change|rebook) flight {flight} to {day}",
                "I need to be in {city} (earlier|later), change my flight",
                "the date of my flight [to {city}] is wrong, it should be {day}",
                "is there a fee to (change|rebook) my flight",
            ),
        ),
        Phrases(
            asks=("rebook to a later flight on {day}",),
            says=("can I fly to {city} earlier than on my ticket", "the date of flight {flight} must move to {day}"),
        ),
    ),
    Intent(
        "flight_status",
        Phrases(
            asks=(
                "check (if|whether) flight {flight} is (on time|delayed)",
                "know the (gate|departure time|terminal) of flight {flight}",
            ),
            says=(
                "is [my] flight {flight} (on time|delayed|late)",
                "when does [my] flight {flight} (leave|land|take off|depart)",
                "(which|what) (gate|terminal) does [my] flight {flight} leave from",
                "has [the] flight {flight} (landed|left|departed) [in {city}]",
                "why is the plane to {city} (late|delayed)",
            ),
        ),
        Phrases(
            asks=("know when flight {flight} takes off",),
            says=(
                "did flight {flight} land [in {city}] on time",
                "from which terminal does the plane to {city} depart",
            ),
        ),
    ),
    Intent(
        "seat_choice",
        Phrases(
            asks=(
                "(choose|pick|select|reserve) a seat [on flight {flight}]",
                "sit (by|at) the window [on flight {flight}]",
                "sit (together|next to my wife|next to my son) [on the plane]",
            ),
            says=(
                "(can I have|I would like) (a window|an aisle|a front row) seat",
                "we want to sit together on flight {flight}",
                "is there a seat with more leg room",
                "which seats are (free|left) on flight {flight}",
            ),
        ),
        Phrases(
            asks=("select an aisle seat on flight {flight}",),
            says=("are there window seats left on the plane to {city}", "my son and I want seats next to each other"),
        ),
    ),
    Intent(
        "baggage_rules",
        Phrases(
            asks=(
                "(take|bring) (a second|a heavy|an extra) (bag|suitcase) [on flight {flight}]",
                "know how (heavy|big) my (bag|suitcase|hand luggage) may be",
                "(add|book) (extra luggage|another suitcase|a bag)",
            ),
            says=(
                "how (many bags|much luggage|many suitcases) can I take [to {city}]",
                "(is|are) (hand luggage|a suitcase|sports bags) included [in my ticket]",
                "what is the (weight|size) limit for (luggage|hand luggage|a suitcase)",
                "may I bring (a pushchair|skis|a guitar|liquids) on the plane",
            ),
        ),
        Phrases(
            asks=("bring an extra bag on the plane",),
            says=("how heavy can luggage be on flight {flight}", "is a second suitcase included [to {city}]"),
        ),
    ),
    Intent(
        "baggage_lost",
        Phrases(
            asks=(
                "report lost (luggage|baggage) [from flight {flight}]",
                "find my (suitcase|bag|luggage) that did not arrive [in {city}]",
            ),
            says=(
                "my (suitcase|luggage|bag) (is lost|did not arrive|is not here) [in {city}]",
                "the airline lost my (luggage|bag|suitcase) [on flight {flight}]",
                "I landed in {city} but my (suitcase|luggage|bag) did not",
                "my bag was not on the belt (in|at) {city}",
            ),
        ),
        Phrases(
            asks=("report that my suitcase from flight {flight} is lost",),
            says=("the luggage was not on the belt after flight {flight}", "you lost my bag on the way to {city}"),
        ),
    ),
    Intent(
        "travel_insurance",
        Phrases(
            asks=(
                "(buy|add|get) [a] travel insurance [for my trip to {city}]",
                "insure my (trip|flight|holiday) [to {city}]",
            ),
            says=(
                "does the [travel] insurance (cover|pay for) (illness|lost bags|a missed flight)",
                "how much is (travel|flight) insurance [for {city}]",
                "am I insured when I (fly|travel) [to {city}]",
                "what does (the|your) (travel|trip) insurance cover",
            ),
        ),
        Phrases(
            asks=("add insurance to my flight to {city}",),
            says=("does my travel insurance pay when I am ill", "is our holiday in {city} insured"),
        ),
    ),
    Intent(
        "visa_needed",
        Phrases(
            asks=(
                "know (if|whether) I need a (visa|passport) [for {city}]",
                "know which (papers|documents) I need (for|in) {city}",
            ),
            says=(
                "do I need a (visa|passport) (for|to enter|to fly to) {city}",
                "is (my passport|an identity card|an id card) enough (for|in) {city}",
                "what (papers|documents) do (I|my children) need [to travel] to {city}",
                "my passport expires on {day}, can I still (fly|travel)",
            ),
        ),
        Phrases(
            asks=("know if a passport is enough to enter {city}",),
            says=("which papers do we need for the trip to {city}", "can I travel to {city} without a visa"),
        ),
    ),
    Intent(
        "lounge_access",
        Phrases(
            asks=(
                "(use|enter|visit) the [airport] lounge [in {city}]",
                "(get|buy) (access|a pass) to the [airport] lounge",
                "wait in the lounge [before flight {flight}]",
            ),
            says=(
                "is there a lounge (at the airport|in {city}|at my gate)",
                "how much is (the lounge|lounge access|a lounge pass)",
                "does my ticket include (the lounge|lounge access)",
                "can my (wife|son|guest) come into the lounge",
            ),
        ),
        Phrases(
            asks=("visit the lounge before my flight to {city}",),
            says=(
                "is the airport lounge included for flight {flight}",
                "what does a pass for the lounge in {city} cost",
            ),
        ),
    ),
)
