"""The feature pyramid network."""

from __future__ import annotations

from collections.abc import Sequence

import keras


@keras.saving.register_keras_serializable("detfeed")
class UpsampleLike(keras.layers.Layer):
    """Double a feature map by repeating its cells, then crop it to the rows and columns of a finer one.

    The crop is for sizes that are not multiples of 32: ceil(ceil(n / 2) * 2) may be one more than n.

    Call args:
        coarse: (B, ceil(h / 2), ceil(w / 2), C).
        fine: (B, h, w, ...), of which only h and w are used.

    Returns:
        (B, h, w, C).
    """

    def call(self, coarse, fine):
        height, width = keras.ops.shape(fine)[1:3]
        doubled = keras.ops.repeat(keras.ops.repeat(coarse, 2, axis=1), 2, axis=2)
        return doubled[:, :height, :width]

    def compute_output_shape(self, coarse_shape, fine_shape):
        return (coarse_shape[0], fine_shape[1], fine_shape[2], coarse_shape[3])


def fpn(in_channels: Sequence[int], *, channels: int = 256) -> keras.Model:
    """Feature pyramid on a backbone's stages.

    Args:
        in_channels: channels of each stage, finest first; each stage has half the rows and columns (rounded up) of the
            one before.
        channels: channels of each output.

    Returns:
        A functional model from the list of stages (B, h, w, C) to a list one longer: each stage's level, and after
        them a level with every second cell of the coarsest. On C2 to C5 that is P2 to P6.

    Source: Lin et al. 2017, with the P6 of their section 4.1; weights start as in torchvision's FeaturePyramidNetwork.
    """
    stages = [keras.Input((None, None, count)) for count in in_channels]
    first_level = 2

    def conv(kernel_size: int, name: str) -> keras.layers.Layer:
        return keras.layers.Conv2D(channels, kernel_size, padding="same", kernel_initializer="lecun_uniform", name=name)

    laterals = [conv(1, f"lateral{level}")(stage) for level, stage in enumerate(stages, first_level)]
    merged = [laterals[-1]]
    for lateral in reversed(laterals[:-1]):
        merged.insert(0, keras.layers.Add()([lateral, UpsampleLike()(merged[0], lateral)]))
    levels = [conv(3, f"output{level}")(features) for level, features in enumerate(merged, first_level)]
    levels.append(keras.layers.MaxPooling2D(1, strides=2, name="subsample")(levels[-1]))
    return keras.Model(stages, levels, name="fpn")
