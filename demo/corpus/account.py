"""Taught: what customers ask about their account, the shelves and the shop."""

from demo.corpus.model import Intent, Phrases

ACCOUNT = (
    Intent(
        "password_reset",
        Phrases(
            asks=(
                "(reset|change|renew) (my|the) password",
                "(get|set|choose) a new password",
                "get the (link|mail) to reset my password",
            ),
            says=(
                "I (forgot|lost|cannot remember|do not know) my password",
                "my password (does not work|is wrong|is not accepted)",
                "the (link|mail) to reset my password (never came|does not work|is expired)",
                "I need a new password [for the app|for the site]",
            ),
        ),
        Phrases(
            asks=("set another password because I forgot mine", "renew the password of my account"),
            says=("the password mail never came", "I do not remember my password [anymore]"),
        ),
        "We sent you a link for a new password.",
    ),
    Intent(
        "account_locked",
        Phrases(
            asks=(
                "(unlock|open|unblock) my account [again]",
                "log in but my account is (locked|blocked)",
                "get back into my (locked|blocked) account",
            ),
            says=(
                "my account (is|was|has been) (locked|blocked|suspended)",
                "you (locked|blocked|suspended) my account",
                "why (is|was) my account (locked|blocked|suspended)",
                "after (three|too many) (tries|attempts) my (account|login) is (locked|blocked)",
                "the app says that my account is (locked|blocked|suspended)",
            ),
        ),
        Phrases(
            asks=("unblock a (locked|suspended) account",),
            says=(
                "the site blocked me after too many attempts",
                "since {day} my account is (suspended|locked)",
                "why did you block my account",
            ),
        ),
        "Your account is open again.",
    ),
    Intent(
        "email_change",
        Phrases(
            asks=(
                "(change|update|replace) my (email|email address|mail address)",
                "use (another|a different|a new) (email|email address) [for my account]",
                "(change|update) the (email|mail) of my account",
            ),
            says=(
                "I have a new (email|email address|mail address)",
                "my (email|email address|mail address) (has changed|is wrong|is old)",
                "I no longer (use|have) (my old|that|this) (email|email address|mail address)",
                "you have (the wrong|my old) (email|email address)",
            ),
        ),
        Phrases(
            asks=("replace the old email address in my account",),
            says=("the (email|mail address) you have is my old one, update it", "I got a new email, can you change it"),
        ),
        "Your email address is changed.",
    ),
    Intent(
        "account_close",
        Phrases(
            asks=(
                "(close|delete|remove|end) my (account|profile)",
                "have (all my data|my account|my profile) (deleted|removed|erased)",
                "leave your shop and (delete|close) my account",
            ),
            says=(
                "I (no longer need|do not need|do not use) my account, (delete|close|remove) it",
                "please (erase|delete|remove) (all my data|my data|everything about me)",
                "I am leaving, (close|delete) my (account|profile)",
                "where do I (close|delete) my (account|profile)",
            ),
        ),
        Phrases(
            asks=("(end|erase) my profile and all my data",),
            says=(
                "I do not want an account anymore, (remove|delete) it",
                "delete everything you have about me, I am leaving",
            ),
        ),
        "Your account will be closed.",
    ),
    Intent(
        "newsletter_stop",
        Phrases(
            asks=(
                "(stop|end|cancel) (the|your) (newsletter|advertising|marketing mails)",
                "(unsubscribe|sign off) from (the|your) (newsletter|mailing list|offers)",
                "get no more (newsletters|advertising|marketing mails|offers)",
            ),
            says=(
                "I get too (many|much) (newsletters|advertising|marketing mails)",
                "(stop|no longer) (send|sending) me (newsletters|offers|advertising)",
                "I never (asked for|signed up for) (your|the) newsletter",
                "take me off (the|your) (mailing list|newsletter)",
                "I do not want [any more] (advertising|newsletters|marketing mails|offers) from you",
            ),
        ),
        Phrases(
            asks=("sign off from your marketing mails",),
            says=(
                "no more newsletters please",
                "take me off the list, I never signed up for your (offers|newsletter)",
                "your advertising is too much, stop sending it",
            ),
        ),
        "You get no more newsletters.",
    ),
)

PRODUCTS = (
    Intent(
        "stock_check",
        Phrases(
            asks=(
                "know (if|whether|when) the {product} is (in stock|available) [again]",
                "check the stock of the {product}",
                "find out if you [still] have the {product} [in {city}]",
            ),
            says=(
                "is the {product} [still|again] (in stock|available) [in {city}]",
                "do you [still] have the {product} [in stock|in {city}]",
                "when (is|will) the {product} (available|back in stock|in stock) [again]",
                "the {product} is sold out, when (does it come|is it) back",
                "how many {product} do you have [left]",
            ),
        ),
        Phrases(
            asks=("know if there is stock of the {product} in {city}",),
            says=(
                "is the {product} sold out [in {city}]",
                "do you have any {product} left",
                "when do you have the {product} again",
            ),
        ),
        "Yes, we have the {product} in stock.",
    ),
    Intent(
        "price_match",
        Phrases(
            asks=(
                "get (the same|a lower|a better) price [for the {product}]",
                "get the (price of another shop|cheaper price) for the {product}",
                "have the price of the {product} matched",
            ),
            says=(
                "another (shop|store|site) (sells|has) the {product} for {amount}",
                "I (saw|found) the {product} cheaper (elsewhere|in another shop) [for {amount}]",
                "do you match (the price|prices) of (other shops|another shop|other stores)",
                "the {product} costs only {amount} (elsewhere|in another shop|on another site)",
                "the {product} was cheaper (last week|on {day}), (do I get the difference|match the price)",
            ),
        ),
        Phrases(
            asks=("match the cheaper price of another store for the {product}",),
            says=(
                "elsewhere the {product} is cheaper, only {amount}",
                "do you give the same price as other shops",
                "I found a lower price for the {product} on another site",
            ),
        ),
        "We match the price of {amount}.",
    ),
    Intent(
        "product_advice",
        Phrases(
            asks=(
                "(choose|pick|find) the (right|best) {product}",
                "compare the {product} (with|and) the (other|cheaper) (one|model)",
                "get (advice|some advice) on (a|the) {product}",
            ),
            says=(
                "which {product} (do you recommend|is best|should I buy|is better)",
                "is the {product} (good|any good|suitable) for (children|beginners|outdoor use|a gift)",
                "what is the difference between the {product} and the (other|cheaper) (one|model)",
                "(recommend|suggest) me a [good] {product}",
                "I cannot decide which {product} (to buy|I should take)",
            ),
        ),
        Phrases(
            asks=("get advice which {product} is best for (beginners|children)",),
            says=(
                "what {product} would you recommend for a gift",
                "should I buy the {product} or the other model",
                "is the cheaper {product} any good",
            ),
        ),
        "Our best choice is the {product}.",
    ),
    Intent(
        "opening_hours",
        Phrases(
            asks=(
                "know (when you open|your opening hours|when you close)",
                "(visit|come to) your (shop|store) [in {city}] on (sunday|saturday|a holiday)",
            ),
            says=(
                "when (does|do) (you|your shop|the store in {city}) (open|close)",
                "what are (your|the) opening (hours|times) [in {city}]",
                "are you open on (sunday|saturday|monday|{day}|holidays)",
                "until (when|what time) is the (shop|store) [in {city}] open",
                "is (the|your) (shop|store) [in {city}] open (today|tomorrow|on {day}|on sunday)",
            ),
        ),
        Phrases(
            asks=("know until what time the store in {city} is open",),
            says=(
                "at what time do you open (tomorrow|on saturday|on {day})",
                "are the opening hours in {city} different on holidays",
                "is your shop closed on {day}",
            ),
        ),
        "We are open from 9 to 18.",
    ),
    Intent(
        "human_agent",
        Phrases(
            asks=(
                "(talk|speak) to (a human|a person|an agent|someone|your manager)",
                "(call|phone) you, what is (the|your) number",
                "be (called back|connected to an agent|put through to someone)",
            ),
            says=(
                "(give|get) me (a human|a real person|an agent|your manager)",
                "(are you|is this) a (robot|machine|bot), I want a (human|person)",
                "I do not want to (talk|write) to a (robot|bot|machine)",
                "what is your (phone|telephone) number",
                "can (someone|an agent|a person) call me [on {day}]",
            ),
        ),
        Phrases(
            asks=("be put through to a (human|real person)", "speak with an agent on the phone"),
            says=("no more robot please, connect me to a person", "can your manager call me back"),
        ),
        "An agent will call you.",
    ),
)
