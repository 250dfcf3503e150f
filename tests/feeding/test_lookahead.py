import random
from itertools import islice, pairwise

import keras
import numpy as np
import pytest

from detfeed import DetectionSequence, Fixed
from detfeed.feeding.lookahead import Lookahead


def guesses(lookahead, index, count, ahead=3, next_count=None):
    return list(islice(lookahead.after(index, count, count if next_count is None else next_count), ahead))


def test_order_of_a_plain_loop_is_guessed_across_epochs():
    lookahead = Lookahead()
    assert [guesses(lookahead, index, 3) for index in range(3)] == [
        [(0, 1), (0, 2), (1, 0)],
        [(0, 2), (1, 0), (1, 1)],
        [(1, 0), (1, 1), (1, 2)],
    ]


def test_single_batch_is_followed_by_that_of_the_next_epoch():
    assert guesses(Lookahead(), 0, 1) == [(1, 0)]


def test_shortened_epoch_is_followed_by_a_whole_one():
    assert guesses(Lookahead(), 1, 2, ahead=9, next_count=4) == [(1, 0), (1, 1), (1, 2), (1, 3)]


def test_jump_is_followed_in_order_from_there():
    lookahead = Lookahead()
    guesses(lookahead, 0, 9)
    assert guesses(lookahead, 5, 9) == [(0, 6), (0, 7), (0, 8)]


def shuffled_like_keras(lookahead, count):
    """The order of keras.src.trainers.data_adapters.py_dataset_adapter, which asks for the length first."""
    lookahead.note_length_asked()
    indices = list(range(count))
    random.shuffle(indices)
    return indices


@pytest.mark.parametrize("seed", range(40))
def test_order_that_keras_shuffled_is_guessed_and_so_is_that_of_its_next_epoch(seed):
    random.seed(seed)
    lookahead = Lookahead()
    order = shuffled_like_keras(lookahead, 20)
    wrong = 0
    for place in range(20):
        lookahead.note_length_asked()  # as a progress bar does
        found = guesses(lookahead, order[place], 20, ahead=30)
        wrong += [index for later, index in found if not later] != order[place + 1 :]
    # An order that begins with 0 is taken as unshuffled, and two may begin alike: the second batch corrects that.
    assert wrong <= 1
    following = [index for later, index in found if later]
    assert following == shuffled_like_keras(lookahead, 20)


@pytest.mark.parametrize("asks", [0, 1])
def test_batches_asked_for_at_random_cost_one_shuffle_in_all(monkeypatch, asks):
    shuffles = []

    class Counted(random.Random):
        def shuffle(self, order):
            shuffles.append(len(order))
            super().shuffle(order)

    lookahead = Lookahead()
    lookahead.note_length_asked()
    monkeypatch.setattr(random, "Random", Counted)
    order = list(range(0, 100, 2))
    Counted(3).shuffle(order)
    shuffles.clear()
    for index in order:
        for _ in range(asks):
            lookahead.note_length_asked()
        assert guesses(lookahead, index, 100)[:1] == [(0, index + 1)]
    assert shuffles == [100]


def test_guessing_draws_nothing_from_the_global_generator():
    random.seed(1)
    expected = random.random()
    random.seed(1)
    lookahead = Lookahead()
    lookahead.note_length_asked()
    guesses(lookahead, 3, 5, ahead=20)
    assert random.random() == expected


def test_default_fit_of_the_installed_keras_asks_in_the_order_that_was_guessed(shapes):
    """Fails if another Keras shuffles in another way: then `Lookahead` has to be changed."""
    asked = []

    def position(sample):
        return {"position": np.float32([sample.position])}, {"nothing": np.zeros(1)}

    class Noted(DetectionSequence):
        def __init__(self):
            super().__init__(shapes, targets=position, batch_size=1, resize=Fixed((32, 32)), workers=2)
            self.get, self.feed.get = self.feed.get, self.note

        def note(self, key, upcoming):
            guesses = list(islice(upcoming, self.feed.ahead))
            asked.append((key, guesses))
            return self.get(key, guesses)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.scale = keras.layers.Dense(1)

        def call(self, inputs):
            return self.scale(inputs["position"])

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(y_pred)

    model = Model()
    model.compile(optimizer="sgd")
    random.seed(0)  # none of these orders begins with 0, as if it were not shuffled
    sequence = Noted()
    epochs = 5
    model.fit(sequence, epochs=epochs, verbose=0)
    sequence.close()
    fed = asked[-epochs * len(shapes) :]  # before them come Keras's looks at batches 0 and 1
    for epoch in range(epochs):
        order = [index for (of, index), _ in fed if of == epoch]
        assert sorted(order) == list(range(len(shapes))) != order
    right = [guesses[0] == following for (_, guesses), (following, _) in pairwise(fed)]
    assert np.mean(right) > 0.97
