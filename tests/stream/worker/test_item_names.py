"""Names of items, looked up by one thread while another forgets some of them."""

from pathlib import Path

import numpy as np

from state.errors import StoreBlocked
from state.events import hash_id
from stream.worker.item_names import ItemNames, Name

MILK, BREAD = hash_id("milk"), hash_id("bread")


class Store:
    """Knows milk; `meanwhile` happens as it is asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.meanwhile = lambda: None

    def item_ids(self, items: np.ndarray) -> list[bytes | None]:
        self.asked.append(items.tolist())
        self.meanwhile()
        return [b"milk" if item == MILK else None for item in items.tolist()]


class Titles(dict[int, str]):
    def get(self, items: np.ndarray) -> list[str | None]:
        return [super(Titles, self).get(item) for item in items.tolist()]


def test_a_name_is_looked_up_once_and_again_after_it_was_forgotten():
    store, titles = Store(), Titles({MILK: "Milk"})
    names = ItemNames({0: store}, titles)
    assert names.of({MILK, BREAD}) == {MILK: Name("milk", "Milk"), BREAD: Name(f"#{BREAD:016x}", None)}
    titles[MILK] = "Whole milk"
    assert names.of({MILK})[MILK].title == "Milk"
    names.forget([MILK])
    assert names.of({MILK})[MILK].title == "Whole milk"
    assert store.asked == [sorted([MILK, BREAD]), [MILK]]


def test_a_name_that_is_forgotten_while_it_is_looked_up_is_not_cached():
    store, titles = Store(), Titles({MILK: "Milk"})
    names = ItemNames({0: store}, titles)
    store.meanwhile = lambda: (titles.update({MILK: "Whole milk"}), names.forget([MILK]))
    assert names.of({MILK}) == {MILK: Name("milk", "Milk")}, "this answer was on its way"
    store.meanwhile = lambda: None
    assert names.of({MILK})[MILK].title == "Whole milk"


def test_while_titles_cannot_be_read_names_come_without_them_and_are_not_cached():
    class Away(Titles):
        def get(self, items: np.ndarray) -> list[str | None]:
            raise StoreBlocked("No space left on device", Path("titles"))

    store = Store()
    names = ItemNames({0: store}, Away())
    assert names.of({MILK}) == {MILK: Name("milk", None)}
    assert names.of({MILK}) == {MILK: Name("milk", None)}
    assert len(store.asked) == 2
