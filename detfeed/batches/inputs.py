"""Inputs: x of a batch in the structure that the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from detfeed.sample import Arrays

Inputs = str | Mapping[str, str]


def check_inputs(inputs: Inputs | None) -> None:
    """Raise TypeError or ValueError unless `inputs` is one; whether x has the arrays it names is seen in a batch."""
    if inputs is None or isinstance(inputs, str):
        return
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for pair in inputs.items() for name in pair):
        raise TypeError(
            'Expected inputs to be the name of an array of x, such as "image", or a dict from the model\'s names to '
            f"such names. Received: {inputs!r}"
        )
    if not inputs:
        raise ValueError("Expected inputs to name at least one array of x. Received: {}")


def arrange(x: Arrays, inputs: Inputs | None) -> Arrays | NDArray[Any]:
    """x as a model takes it.

    Args:
        x: the arrays of a batch by their names here: image, image_hw, and those of the target function.
        inputs: one of these names, for the array alone; a dict from the model's names to names here; None for x as it
            is.

    Raises:
        ValueError: x has no array of such a name.
    """
    if inputs is None:
        return x
    wanted = [inputs] if isinstance(inputs, str) else list(inputs.values())
    unknown = [name for name in wanted if name not in x]
    if unknown:
        raise ValueError(f"Expected inputs to name arrays of x, which has {list(x)}. Received: {unknown[0]!r}")
    return x[inputs] if isinstance(inputs, str) else {name: x[own] for name, own in inputs.items()}
