"""The feature pyramid network."""

from __future__ import annotations

from collections.abc import Sequence

import keras


@keras.saving.register_keras_serializable("detfeed")
class UpsampleLike(keras.layers.Layer):
    """Double a feature map by repeating its cells, then crop it to the size of a finer map.

    The crop matters for inputs whose sides are not multiples of 32: 2 * ceil(n / 2) is n + 1 for an odd n.

    Call args:
        coarse: (B, ceil(h / 2), ceil(w / 2), C).
        fine: (B, h, w, ...); only h and w are used.

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
    """A feature pyramid on the stages of a backbone.

    Args:
        in_channels: channels of each stage, finest first. Each stage has half the height and width (rounded up) of the
            stage before it.
        channels: channels of each level.

    Returns:
        A functional model from the list of stages, (B, h, w, C) each, to the list of levels, (B, h, w, channels) each:
        one for each stage, and one more with every second cell of the coarsest. C2 to C5 give P2 to P6.

    Source: Lin et al. 2017, with the P6 of section 4.1; initial weights as in torchvision's FeaturePyramidNetwork.
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
