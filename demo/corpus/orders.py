"""Taught: what customers ask about an order and about its way to them."""

from demo.corpus.model import Intent, Phrases

ORDERS = (
    Intent(
        "order_status",
        Phrases(
            asks=(
                "(check|see|get) the status of [my] order {order}",
                "(track|follow) my (order|purchase) [{order}]",
                "(know|find out) how far [along] my order [{order}] is",
                "get an update on [my] order {order}",
            ),
            says=(
                "what is (happening with|the status of) [my] order {order}",
                "is my order [{order}] [already] (on its way|shipped|sent|packed)",
                "has my order [{order}] (left the warehouse|been shipped|been sent) [yet]",
                "any (news|update) on [my] order {order}",
                "where is my order [{order}] right now",
            ),
        ),
        Phrases(
            asks=("(see|check) how far order {order} is", "(track|follow) where my order {order} is [right now]"),
            says=("what is the [latest] update on order {order}", "was order {order} [already] (shipped|sent)"),
        ),
        "Order {order} is on its way.",
    ),
    Intent(
        "order_cancel",
        Phrases(
            asks=(
                "cancel [my|the] order [{order}]",
                "(call off|drop|scrap) (my|the) (order|purchase) [{order}]",
                "stop [my|the] order {order} [before it ships]",
                "cancel (the|my) purchase of the {product}",
            ),
            says=(
                "I changed my mind about order {order}, (cancel|stop) it",
                "I (do not want|no longer want|no longer need) [my|the] order {order}",
                "(please do not|do not) send order {order}, I do not want it [anymore]",
                "I ordered the {product} by mistake, cancel it",
            ),
        ),
        Phrases(
            asks=("(call off|cancel) what I ordered [on {day}]", "drop order {order}, I changed my mind"),
            says=(
                "I no longer need what I ordered, (cancel|stop) it",
                "the order {order} was a mistake, do not send it",
            ),
        ),
        "Order {order} is cancelled.",
    ),
    Intent(
        "order_change",
        Phrases(
            asks=(
                "(change|modify|edit|adjust) [my|the] order {order}",
                "(add|put) (a|another) {product} (to|into) my order [{order}]",
                "change the (quantity|colour|number of items) in [my] order {order}",
                "(take|remove) the {product} (out of|from) my order [{order}]",
            ),
            says=(
                "I forgot to add a {product} to [my] order {order}",
                "order {order} needs a change, I want (two|three) instead of one",
                "I picked the wrong colour in order {order}",
                "can order {order} still be (changed|modified|edited)",
            ),
        ),
        Phrases(
            asks=(
                "(edit|adjust) the (quantity|number) of items in order {order}",
                "add one more {product} to order {order}",
            ),
            says=(
                "the {product} in order {order} should be another colour, change it",
                "I want to (modify|edit) what is in my order [{order}]",
            ),
        ),
        "Order {order} is open for changes.",
    ),
    Intent(
        "item_missing",
        Phrases(
            asks=(
                "report a missing (item|article|piece) in [my] order {order}",
                "report that the {product} was not in the box",
                "tell you that (something|an item|a part) is missing",
            ),
            says=(
                "the {product} is missing from [my] order {order}",
                "(only half|not all) of [my] order {order} was in the (box|parcel|package)",
                "there was no {product} in the (box|parcel|package)",
                "I got the (box|parcel|package) but (one|an) (item|article) is missing",
                "my order {order} came incomplete",
            ),
        ),
        Phrases(
            asks=("report a {product} that is missing from the (parcel|box)",),
            says=(
                "the package came but the {product} was not in it",
                "order {order} is incomplete, an (article|item) is missing",
            ),
        ),
        "I will send the missing item of order {order}.",
    ),
    Intent(
        "invoice_copy",
        Phrases(
            asks=(
                "(get|receive|have) (an invoice|a receipt) for [my] order {order}",
                "(download|print) (the|my) (invoice|receipt|bill)",
                "get a copy of the (invoice|receipt|bill) [for order {order}]",
                "have the invoice (made out to|in the name of) my company",
            ),
            says=(
                "I (never got|did not get|lost) (an invoice|the invoice|my receipt|the receipt) [for order {order}]",
                "where (is|do I find) the (invoice|receipt) for [my] order {order}",
                "(send|mail) me the (invoice|receipt|bill) [for order {order}]",
                "my (tax office|accountant|boss) needs (a receipt|an invoice)",
            ),
        ),
        Phrases(
            asks=("(print|receive) a copy of my (receipt|invoice) for order {order}",),
            says=(
                "my company needs the (bill|invoice) for order {order}",
                "there was no (receipt|invoice) with order {order}, send me a copy",
            ),
        ),
        "The invoice of order {order} is in your mail.",
    ),
    Intent(
        "parcel_late",
        Phrases(
            asks=(
                "complain about (a late|the late|my late) (parcel|package|delivery)",
                "report that my (parcel|package) (is late|did not arrive|never came)",
                "find out why my (parcel|package|delivery) is (late|delayed)",
            ),
            says=(
                "my (parcel|package|delivery) (is late|has not arrived|still is not here|never came)",
                "I have been waiting for (my|the) (parcel|package) since {day}",
                "order {order} should have (arrived|been here) on {day}",
                "why (is|does) my (parcel|delivery|package) (delayed|so late|take so long)",
                "the (courier|driver) did not come on {day}",
            ),
        ),
        Phrases(
            asks=("report a (parcel|package) that never arrived",),
            says=(
                "the delivery of order {order} is delayed, I have been waiting [since {day}]",
                "my package was due on {day} and has not arrived",
                "why has my parcel still not arrived",
            ),
        ),
        "I am sorry, order {order} is late. It comes soon.",
    ),
    Intent(
        "parcel_damaged",
        Phrases(
            asks=(
                "report (a damaged|a broken) (parcel|package|item)",
                "report damage to (my|the) {product}",
                "complain about a {product} that came broken",
            ),
            says=(
                "the {product} (arrived|came) (broken|damaged|cracked|smashed)",
                "the (box|parcel|package) was (crushed|wet|torn|damaged) [when it came]",
                "my {product} has a (crack|dent|scratch) [from the transport]",
                "the courier dropped the (parcel|package) and it is (broken|damaged)",
                "everything in order {order} is (broken|smashed|damaged)",
            ),
        ),
        Phrases(
            asks=("report that my {product} came (cracked|damaged)",),
            says=(
                "the {product} has a dent because the box was crushed",
                "order {order} arrived (smashed|broken)",
                "there is a (crack|scratch) in the {product} that came [on {day}]",
            ),
        ),
        "I am sorry. We replace order {order}.",
    ),
    Intent(
        "address_change",
        Phrases(
            asks=(
                "(change|update|correct) (the|my) (delivery|shipping) address",
                "(send|ship|deliver) order {order} to (another|a different|a new) address",
                "have order {order} (sent|delivered|shipped) to {city} instead",
                "(change|correct) the (street|house number|postcode) [for order {order}]",
            ),
            says=(
                "I (moved|have moved|am moving) to {city}, (change|update) my address",
                "I gave [you] the wrong (address|street|house number) [for order {order}]",
                "my (address|street) is wrong [in order {order}]",
                "we live in {city} now, so send it there",
                "the delivery address of order {order} is wrong",
            ),
        ),
        Phrases(
            asks=(
                "(update|correct) the street of order {order}",
                "have my order delivered to a different address in {city}",
            ),
            says=(
                "my new address is in {city}, send order {order} there",
                "the house number is wrong, correct the address",
            ),
        ),
        "Order {order} now goes to your new address.",
    ),
    Intent(
        "pickup_point",
        Phrases(
            asks=(
                "(collect|pick up) my (order|parcel|package) [{order}] (in a shop|in the store|myself)",
                "(find|choose|use) a (pickup point|collection point|parcel locker) [in {city}]",
                "have order {order} sent to a (pickup point|parcel locker|locker)",
            ),
            says=(
                "where is the [nearest|next] (pickup point|collection point|parcel locker) [in {city}]",
                "is there a (locker|pickup point|parcel locker) [near me] in {city}",
                "where (do|can) I (collect|pick up) [my] order {order}",
                "which (shop|locker|pickup point) is my (parcel|package) in",
            ),
        ),
        Phrases(
            asks=("(pick up|collect) order {order} at a (locker|pickup point)",),
            says=(
                "is there a collection point in {city} where I can pick up my parcel",
                "which locker in {city} has my package",
            ),
        ),
        "The nearest pickup point is in {city}.",
    ),
    Intent(
        "shipping_cost",
        Phrases(
            asks=(
                "know (the price of|what you charge for) (shipping|delivery) [to {city}]",
                "get free (shipping|delivery)",
                "know the (shipping|delivery) (cost|costs|fee) [to {city}]",
            ),
            says=(
                "how much (is|does) (shipping|delivery) [cost] [to {city}]",
                "what (do you charge|do I pay) for (shipping|delivery) [to {city}]",
                "is (shipping|delivery) [to {city}] free [above {amount}]",
                "what is the (shipping|delivery) fee for a {product}",
                "do I pay extra for express (shipping|delivery)",
            ),
        ),
        Phrases(
            asks=("know how much delivery to {city} costs",),
            says=(
                "what does shipping of a {product} to {city} cost",
                "do I pay a delivery fee [to {city}]",
                "is express shipping free",
            ),
        ),
        "Shipping to {city} is 4.90.",
    ),
)
