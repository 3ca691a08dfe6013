"""Clicks of a shop that does not exist, as JSON lines for `anabranch publish -`.

    python deploy/sample_clicks.py | anabranch publish - --broker HOST:PORT              until it is stopped
    python deploy/sample_clicks.py --titles | anabranch publish - --topic items --broker HOST:PORT

A shopper mostly clicks what belongs to the last item, sometimes something popular. So there is something to learn.
"""

import argparse
import json
import random
import signal
import sys
import time

KINDS = (
    "Apple", "Bread", "Butter", "Carrot", "Cheese", "Coffee", "Egg", "Flour", "Garlic", "Honey", "Juice", "Lemon",
    "Milk", "Noodle", "Oat", "Olive", "Onion", "Pear", "Pepper", "Rice", "Salt", "Soap", "Sugar", "Tea", "Yoghurt",
)  # fmt: skip
SORTS = (
    "plain", "organic", "fresh", "dried", "sweet", "salted", "small", "large", "red", "green", "white", "dark",
    "smoked", "roasted", "mild", "hot", "local", "imported", "family", "single",
)  # fmt: skip
ITEMS = len(KINDS) * len(SORTS)
DAY_S = 86_400.0
FOLLOWS, POPULAR = 0.6, 0.3
"""Share of clicks on what belongs to the last item, and on something popular. The rest are on any item."""


class Shop:
    """Items, and shoppers who are somewhere among them."""

    def __init__(self, users: int, seed: int) -> None:
        self._random = random.Random(seed)
        order = self._random.sample(range(ITEMS), ITEMS)
        # What belongs to an item: the three after it on one round trip through the shop.
        self._after = {item: [order[(place + step) % ITEMS] for step in (1, 2, 3)] for place, item in enumerate(order)}
        self._last = {user: self._popular() for user in range(users)}

    def _popular(self) -> int:
        return int(ITEMS * self._random.random() ** 3)

    def click(self, ts_ms: int) -> dict[str, object]:
        """Somebody clicks."""
        user, way = self._random.randrange(len(self._last)), self._random.random()
        if way < FOLLOWS:
            item = self._random.choice(self._after[self._last[user]])
        else:
            item = self._popular() if way < FOLLOWS + POPULAR else self._random.randrange(ITEMS)
        self._last[user] = item
        return {"user": f"shopper-{user}", "item": f"sku-{item}", "ts": ts_ms}


def titles() -> list[dict[str, str]]:
    """A title of each item."""
    named = [f"{kind}, {sort}" for kind in KINDS for sort in SORTS]
    return [{"item": f"sku-{item}", "title": title} for item, title in enumerate(named)]


def say(message: object) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(message) + "\n")


def main() -> None:
    """Write titles, or clicks: those of the last day at once, and then a few each second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", action="store_true", help="write the items' titles instead of clicks")
    parser.add_argument(
        "--past", type=int, default=25_000, metavar="N", help="clicks of the last day, at once (%(default)s)"
    )
    parser.add_argument(
        "--speed", type=float, default=20.0, metavar="N", help="clicks a second after these (%(default)s); 0: none"
    )
    parser.add_argument("--users", type=int, default=2_000, metavar="N", help="how many shoppers (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another shop and other shoppers (%(default)s)")
    options = parser.parse_args()
    if options.users < 1 or options.past < 0 or options.speed < 0:
        parser.error("--users is at least 1; --past and --speed are not negative")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the reader has ended: end too, without a traceback
    if options.titles:
        for title in titles():
            say(title)
        return
    shop, start_s = Shop(options.users, options.seed), time.time()
    for number in range(options.past):
        say(shop.click(int(1000 * (start_s - DAY_S * (1 - number / options.past)))))
    sys.stdout.flush()
    while options.speed:
        time.sleep(shop_pause_s(options.speed))
        say(shop.click(int(1000 * time.time())))
        sys.stdout.flush()


def shop_pause_s(speed: float) -> float:
    """A time between two clicks, at random, with this many a second on average."""
    return random.expovariate(speed)


if __name__ == "__main__":
    main()
