"""ResNet50 as a feature extractor, and the normalisation that its ImageNet weights expect."""

from __future__ import annotations

import os
import re

import keras
from keras import ops

from detfeed.errors import DownloadError

STAGE_OUTPUTS = {2: "conv2_block3_out", 3: "conv3_block4_out", 4: "conv4_block6_out", 5: "conv5_block3_out"}
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


@keras.saving.register_keras_serializable("detfeed")
class CaffeNormalize(keras.layers.Layer):
    """Normalise padded uint8 RGB images as keras.applications' ResNet50 expects.

    The layer turns RGB into BGR, subtracts the ImageNet mean, and then sets the padding to 0. Padding is therefore the
    mean colour, as in torchvision and detectron2, and not black.

    Call args:
        image: uint8 (B, H, W, 3), RGB, padded at the bottom and the right.
        image_hw: int32 (B, 2), height and width of each image without its padding.

    Returns:
        (B, H, W, 3) in the layer's compute dtype, computed in float32.

    Source: keras.applications.imagenet_utils.preprocess_input(mode="caffe").
    """

    def call(self, image, image_hw):
        image = ops.flip(ops.cast(image, "float32"), axis=-1)
        image = image - ops.convert_to_tensor(CAFFE_MEAN_BGR, dtype="float32")
        height, width = ops.shape(image)[1:3]
        image_hw = ops.cast(image_hw, "int32")
        inside_rows = ops.arange(height, dtype="int32") < image_hw[:, 0:1]
        inside_columns = ops.arange(width, dtype="int32") < image_hw[:, 1:2]
        inside = ops.logical_and(inside_rows[:, :, None], inside_columns[:, None, :])
        return ops.cast(ops.where(inside[..., None], image, 0.0), self.compute_dtype)

    def compute_output_shape(self, image_shape, image_hw_shape):
        return image_shape


def resnet50(
    *,
    weights: str | os.PathLike | None = None,
    frozen_stages: int = 0,
    frozen_batch_norm: bool = False,
    batch_norm_momentum: float = 0.9,
    stride_in_1x1: bool | None = None,
    last_stage: int = 5,
) -> keras.Model:
    """The stages of keras.applications' ResNet50 that a detector uses.

    Args:
        weights: None for random weights, "imagenet" to download them (or take them from Keras's cache), or the path of
            a weights file of ResNet50(include_top=False).
        frozen_stages: number of frozen stages, counted from the input: 0 none, 1 the stem, 2 to 5 also conv2 to conv5.
            A frozen stage is not trained, and neither are its batch norms.
        frozen_batch_norm: let every batch norm use its stored statistics and stay untrained. Right for pretrained
            weights with the small batches of detection.
        batch_norm_momentum: share of the moving average that a step keeps. The 0.99 of keras.applications needs
            hundreds of steps to forget the initial statistics.
        stride_in_1x1: whether stages 3 to 5 halve the image in the 1x1 convolution of their first block, which drops
            three of four cells unseen, as in He et al. and Keras's ImageNet weights; or in the 3x3 convolution after
            it, as in torchvision. None: in the 1x1 with weights, in the 3x3 without.
        last_stage: number of the last stage to return, 2 to 5.

    Returns:
        A functional model from normalised images, float (B, H, W, 3) (see `CaffeNormalize`), to the list of the outputs
        C2 to C<last_stage>: (B, ceil(H / s), ceil(W / s), C) with s = 4, 8, 16, 32 and C = 256, 512, 1024, 2048.

    Raises:
        ValueError: an argument is out of its range, or Keras is set to channels_first.
        FileNotFoundError: `weights` is a path without a file.
        DownloadError: the ImageNet weights could not be downloaded.

    Source: He et al. 2016.
    """
    if last_stage not in STAGE_OUTPUTS:
        raise ValueError(f"resnet50 expects last_stage from 2 to 5. Received: {last_stage}")
    if not 0 <= frozen_stages <= 5:
        raise ValueError(f"resnet50 expects frozen_stages from 0 to 5. Received: {frozen_stages}")
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "resnet50 expects images as (B, H, W, 3), but Keras is set to channels_first. "
            'Call keras.config.set_image_data_format("channels_last") first.'
        )
    full = _full_resnet50(weights, frozen_stages, frozen_batch_norm, batch_norm_momentum, stride_in_1x1)
    outputs = [full.get_layer(STAGE_OUTPUTS[stage]).output for stage in range(2, last_stage + 1)]
    return keras.Model(full.input, outputs, name="resnet50")


def resnet50_stage5(
    *,
    weights: str | os.PathLike | None = None,
    frozen_stages: int = 0,
    frozen_batch_norm: bool = False,
    batch_norm_momentum: float = 0.9,
    stride_in_1x1: bool | None = None,
) -> keras.Model:
    """The last stage of keras.applications' ResNet50 alone: the head of a C4 detector.

    Args:
        weights, frozen_stages, frozen_batch_norm, batch_norm_momentum, stride_in_1x1: see `resnet50`.

    Returns:
        A functional model from features of stage 4 (N, h, w, 1024) to those of stage 5 (N, ceil(h / 2), ceil(w / 2),
        2048).

    Raises:
        FileNotFoundError, DownloadError: see `resnet50`.

    Source: He et al. 2016, appendix A.
    """
    full = _full_resnet50(weights, frozen_stages, frozen_batch_norm, batch_norm_momentum, stride_in_1x1)
    return keras.Model(full.get_layer(STAGE_OUTPUTS[4]).output, full.get_layer(STAGE_OUTPUTS[5]).output, name="stage5")


def _full_resnet50(
    weights: str | os.PathLike | None,
    frozen_stages: int,
    frozen_batch_norm: bool,
    batch_norm_momentum: float,
    stride_in_1x1: bool | None,
) -> keras.Model:
    full = _load(weights)
    if not (weights is not None if stride_in_1x1 is None else stride_in_1x1):
        full = _with_strides_in_3x3(full)
    if weights is None:
        # The start of He et al. 2015 and torchvision; keras.applications has Glorot's. Without the generator, the
        # initializer would give kernels of the same shape the same numbers. The last batch norm of each block begins at
        # 0, so that the block begins as its shortcut (Goyal et al. 2017, section 5.1). The loss of Faster R-CNN on
        # drawn shapes falls to 0.92 in 450 steps then, instead of 650.
        start = keras.initializers.VarianceScaling(
            2.0, mode="fan_out", distribution="untruncated_normal", seed=keras.random.SeedGenerator()
        )
        for layer in full.layers:
            if isinstance(layer, keras.layers.Conv2D):
                layer.kernel.assign(start(layer.kernel.shape))
            elif layer.name.endswith("_3_bn"):
                layer.gamma.assign(keras.ops.zeros(layer.gamma.shape))
    frozen_prefixes = tuple(f"conv{stage}_" for stage in range(1, frozen_stages + 1))
    for layer in full.layers:
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        if is_batch_norm:
            layer.momentum = batch_norm_momentum
        if layer.name.startswith(frozen_prefixes) or (frozen_batch_norm and is_batch_norm):
            layer.trainable = False
    return full


def _with_strides_in_3x3(full: keras.Model) -> keras.Model:
    def clone(layer):
        config = layer.get_config()
        if re.fullmatch("conv[345]_block1_1_conv", layer.name):
            config["strides"] = 1
        elif re.fullmatch("conv[345]_block1_2_conv", layer.name):
            config |= {"strides": 2, "padding": "valid"}
        return type(layer).from_config(config)

    def call(layer, *inputs, **keywords):
        if re.fullmatch("conv[345]_block1_2_conv", layer.name):
            # Equal on both sides, which "same" is not with a stride: cell i has its centre at cell 2 i of the input.
            inputs = (keras.layers.ZeroPadding2D(1, name=f"{layer.name}_pad")(*inputs),)
        return layer(*inputs, **keywords)

    moved = keras.models.clone_model(full, clone_function=clone, call_function=call)
    moved.set_weights(full.get_weights())
    return moved


def _load(weights: str | os.PathLike | None) -> keras.Model:
    if weights is not None and weights != "imagenet":
        weights = os.path.expanduser(os.fspath(weights))
        if not os.path.isfile(weights):
            raise FileNotFoundError(
                f'{weights}: expected None, "imagenet" or a file with the weights of ResNet50(include_top=False), '
                "found no file"
            )
    build = keras.applications.ResNet50
    try:
        return build(include_top=False, weights=weights, input_shape=(None, None, 3))
    except Exception as error:
        if weights != "imagenet":
            raise
        cache = os.path.join(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "models")
        raise DownloadError(
            f"The ImageNet weights of ResNet50 could not be downloaded ({error}). Use weights=None (--weights none) to "
            "train from scratch. Or download resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 on another machine, "
            f"and pass its path as weights=... (--weights ...) or put it into {cache}, where Keras looks first."
        ) from error
