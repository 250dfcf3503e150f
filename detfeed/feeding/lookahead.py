"""Lookahead: guesses which batches will be asked for next, so that they can be made ahead."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any


class Lookahead:
    """Follows a reader that asks for batches in order, or in an order that Keras shuffled.

    Keras 3.15.1 shuffles the indices of an epoch with the global `random.shuffle`, right after it asked for the number
    of batches. It gives the order to nobody, but a copy of the state of `random` at that moment yields the same order.
    A wrong guess costs time and nothing else, and nothing here draws from the global generator.

    What the guesses earn: a default `fit` with two processes was fed 34 images/s with them and 8.5 without, and spent
    1.8 against 4.2 CPU seconds on 100 images. (Medians of five interleaved rounds of `scripts/bench_feed.py
    --short-side 400`, 2.4 to 6.1 times in single rounds: two cores of an AMD EPYC that did other work, too; Python
    3.11.7, Keras 3.15.1, TensorFlow 2.21.0.)
    """

    def __init__(self) -> None:
        # Several, since others ask for the number of batches, too.
        self._shuffles: deque[_Shuffle] = deque(maxlen=8)
        self._asked: deque[int] = deque(maxlen=4)  # the latest batches
        self._order: Sequence[int] = range(0)
        self._place = 0
        self._next = _Shuffle(None)

    def note_length_asked(self) -> None:
        """Note that the number of batches was asked for: a shuffle may follow."""
        state = random.getstate()
        if not self._shuffles or self._shuffles[-1].state != state:
            self._shuffles.append(_Shuffle(state))

    def after(self, index: int, count: int, next_count: int) -> Iterator[tuple[int, int]]:
        """The batches that will probably be asked for after a batch.

        Args:
            index: the batch that is asked for now.
            count: number of batches in this epoch.
            next_count: number of batches in the next epoch.

        Returns:
            Iterator of pairs: 0 for this epoch or 1 for the next, and an index.
        """
        self._asked.append(index)
        order, place = self._order, self._place + 1
        if len(order) != count or place == count or order[place] != index:
            order, place = self._begin(index, count)
        # Threads may share this object. If they mix up their orders, that costs time and nothing else.
        self._order, self._place = order, place
        return self._upcoming(order, place, next_count)

    def _begin(self, index: int, count: int) -> tuple[Sequence[int], int]:
        """The order of a pass that begins with a batch or jumps to it, and the place of the batch in it."""
        asked = list(self._asked)
        # A pass that starts at batch 0 is taken as unshuffled unless the previous pass was shuffled. A wrong guess is
        # corrected as further batches are asked for.
        in_order = index == 0 and isinstance(self._order, range)
        for known in range(len(asked), 1 if in_order else 0, -1):
            for shuffle in reversed(list(self._shuffles)):
                order = shuffle.order(count)
                if order[:known] == asked[-known:]:
                    return order, known - 1
        return range(count), index

    def _upcoming(self, order: Sequence[int], place: int, next_count: int) -> Iterator[tuple[int, int]]:
        for later in range(place + 1, len(order)):
            yield 0, order[later]
        if isinstance(order, range):
            order = range(next_count)
        else:
            state = random.getstate()
            if self._next.state != state:
                self._next = _Shuffle(state)
            order = self._next.order(next_count)
        for index in order:
            yield 1, index


class _Shuffle:
    """The order that `random.shuffle` makes from a state. It is kept: COCO's batches take 15 ms to shuffle."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self._order: list[int] = []

    def order(self, count: int) -> list[int]:
        """0 to count - 1, shuffled."""
        if len(self._order) != count:
            generator = random.Random()
            generator.setstate(self.state)
            order = list(range(count))
            generator.shuffle(order)
            self._order = order
        return self._order
