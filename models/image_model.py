"""A Keras model of images in the form in which detfeed feeds them."""

from __future__ import annotations

import keras


class ImageModel(keras.Model):
    """A model with inputs {"image": uint8 (B, H, W, 3), "image_hw": int32 (B, 2)}, and others for training.

    Its inputs keep their precision under a mixed policy: boxes in half precision are pixels off. Its parts have their
    own policies.
    """

    def __init__(self, *, name: str):
        super().__init__(name=name, autocast=False)

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        """As Keras's `export`, with images of any number and size for `input_signature` unless one is given."""
        if input_signature is None:
            # Keras would take float32 for each input.
            input_signature = [
                {
                    "image": keras.InputSpec(dtype="uint8", shape=(None, None, None, 3), name="image"),
                    "image_hw": keras.InputSpec(dtype="int32", shape=(None, 2), name="image_hw"),
                }
            ]
        return super().export(filepath, format, verbose, input_signature, **kwargs)


def serialize_part(model: keras.Model) -> dict:
    """The config of a model that is part of another one, without its optimizer: only the outer model is trained."""
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    return config
