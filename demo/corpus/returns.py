"""Taught: what customers ask when goods or money go back, and when they pay."""

from demo.corpus.model import Intent, Phrases

RETURNS = (
    Intent(
        "return_start",
        Phrases(
            asks=(
                "(return|send back|give back) (the|my|a) {product}",
                "(return|send back) [my] order {order}",
                "(start|register) a return [for order {order}]",
                "bring the {product} back to you",
            ),
            says=(
                "I (do not like|am not happy with) the {product}, I want to (return it|send it back)",
                "the {product} is not what I expected, (can I return it|I am sending it back)",
                "can I still (return|send back) [my] order {order}",
                "how many days do I have to (return|send back) (something|the {product})",
            ),
        ),
        Phrases(
            asks=("register order {order} for a return", "give the {product} back because I do not like it"),
            says=(
                "I am not happy with order {order} and want to send it back",
                "can I bring back a {product} that I bought on {day}",
            ),
        ),
        "You can return order {order} within 30 days.",
    ),
    Intent(
        "refund_status",
        Phrases(
            asks=(
                "(know|find out) when I get my (money|refund) [back]",
                "check (my|the) refund [of {amount}] [for order {order}]",
                "get the refund that you promised",
            ),
            says=(
                "where is my (refund|money) [for order {order}]",
                "when (do I get|will I get|will you send) my (money back|refund)",
                "I (am still waiting for|have not received|have not seen) my (refund|money) [of {amount}]",
                "the refund [of {amount}] is not (in|on) my (bank|account) yet",
                "I sent everything back on {day} and got no (refund|money)",
            ),
        ),
        Phrases(
            asks=("find out where my refund of {amount} is",),
            says=(
                "I returned it on {day}, when is my money back",
                "still no refund [for order {order}] on my account",
                "has the refund of {amount} been sent",
            ),
        ),
        "Your refund for order {order} takes 5 days.",
    ),
    Intent(
        "size_exchange",
        Phrases(
            asks=(
                "(exchange|swap|change) the {product} for (a bigger|a smaller|another|a larger) (size|one)",
                "get (a bigger|a smaller|a larger|another) size",
                "(exchange|swap) the size of order {order}",
            ),
            says=(
                "the {product} is too (small|big|large|tight|short), I need (a bigger|a smaller|another) (size|one)",
                "the size (is wrong|does not fit), (can I exchange it|I want to swap it)",
                "it does not fit, do you have (a bigger|a smaller|a larger) (one|size)",
                "wrong size in order {order}, (exchange|swap) it please",
            ),
        ),
        Phrases(
            asks=("swap my {product} because the size does not fit",),
            says=(
                "the {product} is too tight, can I exchange it for a larger size",
                "I need order {order} in a smaller size, this is too big",
            ),
        ),
        "We exchange the size of order {order}.",
    ),
    Intent(
        "warranty_claim",
        Phrases(
            asks=(
                "(make|file) a (warranty|guarantee) claim [for the {product}]",
                "use (the|my) (warranty|guarantee) [of the {product}]",
                "have the {product} repaired [under warranty|under guarantee]",
            ),
            says=(
                "the {product} stopped working after (a month|a year|two weeks)",
                "my {product} (does not turn on|broke down|is defective|no longer works)",
                "is [there] (a warranty|a guarantee) on the {product} [still valid]",
                "how long is the (warranty|guarantee) on (a|the|my) {product}",
                "is the {product} still under (warranty|guarantee)",
            ),
        ),
        Phrases(
            asks=("have a defective {product} repaired", "know if the guarantee of my {product} is still valid"),
            says=(
                "after two months the {product} no longer works",
                "my {product} broke down, it is still under (guarantee|warranty)",
            ),
        ),
        "The warranty of your {product} lasts 2 years.",
    ),
    Intent(
        "return_label",
        Phrases(
            asks=(
                "(print|get|download) a return label [for order {order}]",
                "get a (new|second) label for my return",
                "(receive|have) the return label (by mail|as a file)",
            ),
            says=(
                "the return label (is missing|is not in the box|cannot be printed)",
                "I have no (printer|way to print) for the [return] label",
                "(send|mail) me a return label [for order {order}]",
                "where (is|do I find) the return label [for order {order}]",
                "the label for my return does not (work|open|scan)",
            ),
        ),
        Phrases(
            asks=("download the label for my return of order {order}",),
            says=(
                "there is no return label in the box",
                "I need a new label to return order {order}",
                "the return label cannot be (scanned|opened)",
            ),
        ),
        "A return label for order {order} is in your mail.",
    ),
)

PAYMENTS = (
    Intent(
        "card_declined",
        Phrases(
            asks=(
                "find out why my (card|credit card|payment) (was declined|failed|is rejected)",
                "pay but my (card|credit card) is (declined|refused|rejected)",
            ),
            says=(
                "my (card|credit card|bank card) (was|is|keeps being) (declined|refused|rejected)",
                "the payment [of {amount}] (failed|did not go through|was rejected)",
                "your (site|shop|app) (refuses|rejects|does not take) my (card|credit card)",
                "I cannot pay, (my card fails|the card is refused)",
                "why (is|was) my (card|payment) (declined|rejected|refused)",
            ),
        ),
        Phrases(
            asks=("know why the payment of {amount} failed",),
            says=(
                "I tried to pay {amount} but the card was refused",
                "the shop keeps rejecting my credit card",
                "my payment for the {product} did not go through",
            ),
        ),
        "Please try another card.",
    ),
    Intent(
        "charged_twice",
        Phrases(
            asks=(
                "report (a double|a wrong|a second) (charge|payment) [of {amount}]",
                "get back {amount} that you (charged|took) twice",
            ),
            says=(
                "I (was|have been) charged (twice|two times) [for order {order}]",
                "you (charged|took|booked) {amount} (twice|two times) [from my card]",
                "there is a (double|second) (charge|payment) of {amount} on my (card|account|bank statement)",
                "I paid (twice|two times) for order {order}",
                "why did you take {amount} (twice|two times)",
            ),
        ),
        Phrases(
            asks=("report that you booked {amount} twice",),
            says=(
                "my bank statement shows two charges of {amount}",
                "order {order} was (charged|booked) two times",
                "I see a double payment on my card [of {amount}]",
            ),
        ),
        "I am sorry. We send back {amount}.",
    ),
    Intent(
        "payment_methods",
        Phrases(
            asks=(
                "know (which|what) (payment methods|cards) you (accept|take)",
                "pay (by|with) (cash|bank transfer|credit card|cheque|phone)",
                "(change|add) (a|my) payment method",
            ),
            says=(
                "(which|what) (payment methods|cards|ways to pay) do you (accept|have|take)",
                "do you (accept|take) (cash|credit cards|bank transfer|cheques)",
                "can I pay (by|with) (bank transfer|credit card|cash|phone)",
                "what are the ways to pay [for order {order}]",
            ),
        ),
        Phrases(
            asks=("know if you take (cheques|cash|credit cards)",),
            says=(
                "can I pay {amount} by (bank transfer|cash)",
                "tell me the ways to pay that you accept",
                "is (bank transfer|cash) accepted as payment method",
            ),
        ),
        "We take cards, cash and bank transfer.",
    ),
    Intent(
        "pay_later",
        Phrases(
            asks=(
                "pay (later|next month|in parts|in instalments)",
                "(split|spread) the payment [of {amount}] (over|into) (three|six|twelve) (months|parts)",
                "(delay|postpone) (the|my) payment [until {day}]",
            ),
            says=(
                "can I pay (in instalments|in parts|later|after delivery)",
                "do you (offer|have) (instalments|monthly payments|payment in parts)",
                "{amount} is too much at once, can I pay (monthly|in parts)",
                "I can only pay (next month|on {day}|after {day})",
                "is there a (plan|way) to pay {amount} (monthly|in parts|in instalments)",
            ),
        ),
        Phrases(
            asks=("pay {amount} in (monthly parts|instalments)", "postpone the payment to next month"),
            says=("can I split {amount} into monthly payments", "is it ok to pay after {day}, I cannot pay at once"),
        ),
        "You can pay {amount} in 3 parts.",
    ),
    Intent(
        "gift_card",
        Phrases(
            asks=(
                "(use|redeem) (a|my) (gift card|voucher) [of {amount}]",
                "(buy|order) a gift card [of {amount}] [for a friend]",
                "check (how much is left on|the balance of) my gift card",
            ),
            says=(
                "my (gift card|voucher) [of {amount}] (does not work|is not accepted|is invalid)",
                "how much is left on my (gift card|voucher)",
                "until when is my (gift card|voucher) valid",
                "where do I enter the (code of my gift card|voucher code|gift card code)",
                "the (voucher|gift card) code is (wrong|rejected|invalid)",
            ),
        ),
        Phrases(
            asks=("enter the code of my (voucher|gift card)",),
            says=(
                "my voucher of {amount} is rejected",
                "what is the balance of my gift card",
                "is the gift card that I bought on {day} still valid",
            ),
        ),
        "Enter the code of your gift card when you pay.",
    ),
)
