import keras
import numpy as np
import pytest
from keras import ops


@pytest.fixture(autouse=True, scope="module")
def _fixtures_of_a_module_draw_the_same_weights():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _each_test_draws_the_same_weights():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def with_gradients():
    """Turns a function into one that returns its result and the gradients of its weighted sum, by each argument."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def wrapped(function, weight, *arguments):
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                result = function(*arguments)
                total = tf.reduce_sum(result * weight)
            return result, [tf.convert_to_tensor(gradient) for gradient in tape.gradient(total, arguments)]
    elif backend == "jax":
        import jax

        def wrapped(function, weight, *arguments):
            result, pull_back = jax.vjp(function, *arguments)
            return result, pull_back(ops.broadcast_to(weight, result.shape))
    else:

        def wrapped(function, weight, *arguments):
            arguments = [argument.detach().requires_grad_() for argument in arguments]
            result = function(*arguments)
            (result * ops.convert_to_tensor(weight)).sum().backward()
            return result, [argument.grad for argument in arguments]

    return lambda function, weight=1.0: lambda *arguments: wrapped(function, weight, *arguments)
