"""Backend: what Keras computes with. Keras is imported here first, with an error that says which extra to install."""

import importlib.util

BACKENDS = ("tensorflow", "jax", "torch")

try:
    import keras as keras
except ModuleNotFoundError as error:
    if error.name not in BACKENDS:
        raise
    message = (
        f"Keras is set to the backend {error.name}, which is not installed. Install with: "
        f"pip install 'detfeed[{error.name}]'"
    )
    others = [name for name in BACKENDS if name != error.name]
    if installed := [name for name in others if importlib.util.find_spec(name)]:
        message += f"; or set the environment variable KERAS_BACKEND={installed[0]}, which is installed"
    else:
        message += f"; or take {' or '.join(f'[{name}]' for name in others)}, and set KERAS_BACKEND to its name"
    raise ImportError(message, name=error.name) from error
