"""The region proposal network: which anchors show an object, and how to move them onto it."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import keras
import numpy as np
from keras import ops

from detfeed.models.backbone import CaffeNormalize, resnet50
from detfeed.models.fpn import fpn
from detfeed.models.image_model import ImageModel
from detfeed.models.losses import dense_rpn_loss, sampled_rpn_loss
from detfeed.targets.anchors import AnchorGrid

FPN_STRIDES = (4, 8, 16, 32, 64)
C4_STRIDES = (16,)
FPN_CHANNELS = 256
C4_CHANNELS = 512


@keras.saving.register_keras_serializable("detfeed")
class RPN(ImageModel):
    """Region proposal network on ResNet50, with a feature pyramid or on stage C4 alone.

    Call `compile` with an optimizer only, and `fit` on an AnchorTargetSequence. The losses are then torchvision's on
    sampled targets (`sampled_rpn_loss`), and the same over all anchors on dense ones (`dense_rpn_loss`), reported as
    `objectness_loss` and `box_loss`. `compile(loss={"objectness": ..., "deltas": ...})` replaces them by losses of your
    own; that needs dense targets.
    `save` and `keras.saving.load_model` keep the whole model, the AnchorGrid included.

    Args:
        anchors: the grid of the targets. Strides (4, 8, 16, 32, 64) give a feature pyramid P2 to P6, (16,) gives C4.
            All levels have the same number of anchors per cell, K, since they share one head.
        weights, frozen_stages, frozen_batch_norm, batch_norm_momentum, stride_in_1x1: see `resnet50`.

    Call args:
        inputs: {"image": uint8 (B, H, W, 3), RGB, padded at the bottom and the right,
            "image_hw": int32 (B, 2), height and width without the padding}.

    Returns:
        {"objectness": float32 (B, A, 1), logits, "deltas": float32 (B, A, 4), dx, dy, dw, dh}, in the grid's order.
        The last axis of objectness lets Keras's own losses take one weight per anchor, (B, A).

    Raises:
        ValueError: the strides are neither of the two, or levels have different numbers of anchors per cell.

    Source: Ren et al. 2015; Lin et al. 2017; layers as in torchvision's RPNHead.
    """

    def __init__(
        self,
        anchors: AnchorGrid,
        *,
        weights: str | os.PathLike | None = None,
        frozen_stages: int = 0,
        frozen_batch_norm: bool = False,
        batch_norm_momentum: float = 0.9,
        stride_in_1x1: bool | None = None,
        name: str = "rpn",
    ):
        super().__init__(name=name)
        if anchors.strides not in (FPN_STRIDES, C4_STRIDES):
            raise ValueError(
                f"RPN expects anchors with strides {FPN_STRIDES} (feature pyramid) or {C4_STRIDES} (C4). "
                f"Received: {anchors.strides}"
            )
        if len(set(anchors.num_cell_anchors)) > 1:
            raise ValueError(
                "RPN shares one head between levels, so it expects the same number of anchors per cell on each. "
                f"Received: {anchors.num_cell_anchors}"
            )
        has_pyramid = anchors.strides == FPN_STRIDES
        self.anchors = anchors
        self.weights_source = weights
        self.frozen_stages = frozen_stages
        self.frozen_batch_norm = frozen_batch_norm
        self.batch_norm_momentum = batch_norm_momentum
        self.stride_in_1x1 = weights is not None if stride_in_1x1 is None else stride_in_1x1
        self.normalize = CaffeNormalize(name="normalize")
        self.backbone = resnet50(
            weights=weights,
            frozen_stages=frozen_stages,
            frozen_batch_norm=frozen_batch_norm,
            batch_norm_momentum=batch_norm_momentum,
            stride_in_1x1=self.stride_in_1x1,
            last_stage=5 if has_pyramid else 4,
        )
        stage_channels = [stage.shape[-1] for stage in self.backbone.outputs]
        if has_pyramid:
            self.pyramid = fpn(stage_channels, channels=FPN_CHANNELS)
            self.head = rpn_head(FPN_CHANNELS, FPN_CHANNELS, anchors.num_cell_anchors[0])
        else:
            self.pyramid = None
            self.head = rpn_head(stage_channels[-1], C4_CHANNELS, anchors.num_cell_anchors[0])
        self.objectness_loss = keras.metrics.Mean(name="objectness_loss")
        self.box_loss = keras.metrics.Mean(name="box_loss")
        # All parts have their weights, so load_weights and count_params work before the first call.
        self.built = True

    def call(self, inputs, training=None):
        return self.score_anchors(self.extract_features(inputs, training=training))

    def extract_features(self, inputs, training=None):
        """The first half of `call`: a list of one feature map (B, h, w, C) per level of the grid."""
        image = self.normalize(inputs["image"], inputs["image_hw"])
        stages = self.backbone(image, training=training)
        return stages[-1:] if self.pyramid is None else self.pyramid(stages)

    def score_anchors(self, levels):
        """The second half of `call`: from the feature maps to what `call` returns."""
        objectness, deltas = [], []
        for features in levels:
            level_objectness, level_deltas = self.head(features)  # (B, h, w, K), (B, h, w, 4 K)
            batch = ops.shape(features)[0]
            objectness.append(ops.reshape(level_objectness, (batch, -1, 1)))
            deltas.append(ops.reshape(level_deltas, (batch, -1, 4)))
        return {
            "objectness": ops.cast(ops.concatenate(objectness, axis=1), "float32"),
            "deltas": ops.cast(ops.concatenate(deltas, axis=1), "float32"),
        }

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss that fit and evaluate use.

        Args:
            y: sampled targets {"anchor_index": int32 (B, S), "anchor_state": int8 (B, S), "anchor_deltas": float32
                (B, S, 4)}, or dense ones {"objectness": float32 (B, A, 1), "deltas": float32 (B, A, 4)}.
            y_pred: the outputs of the model.
            sample_weight: with dense targets {"objectness": float32 (B, A), "deltas": float32 (B, A)}, else None.

        Returns:
            A float32 scalar: the sum of objectness loss, box loss and the losses of regularisers.

        Raises:
            ValueError: dense targets without weights; the model would learn from ignored anchors and from padding.
        """
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        objectness_loss, box_loss = rpn_loss(y_pred["objectness"], y_pred["deltas"], y, sample_weight)
        # Keras weights its metric `loss` by the batch size. With the same weights these two metrics are its parts.
        batch = ops.shape(y_pred["objectness"])[0]
        self.objectness_loss.update_state(objectness_loss, sample_weight=batch)
        self.box_loss.update_state(box_loss, sample_weight=batch)
        # Keras adds up losses with this method, which divides by the replicas of a tf.distribute strategy.
        return sum(self._aggregate_additional_loss(loss) for loss in [objectness_loss, box_loss, *self.losses])

    @property
    def metrics(self):
        """Keras's metrics. The two losses of this model are among them unless other losses were compiled."""
        own = (self.objectness_loss, self.box_loss)
        return [metric for metric in super().metrics if self.loss is None or metric not in own]

    def save_own_variables(self, store):
        store["stride_in_1x1"] = np.array(self.stride_in_1x1)

    def load_own_variables(self, store):
        # The shapes of weights are the same either way. Files from before it was saved have the stride in the 1x1.
        stored = bool(np.array(store["stride_in_1x1"])) if "stride_in_1x1" in store.keys() else True  # noqa: SIM118
        if stored != self.stride_in_1x1:
            raise ValueError(
                f"RPN expects weights of a model with stride_in_1x1={self.stride_in_1x1}. Received: weights of one "
                f"with stride_in_1x1={stored}; make the model with that"
            )

    def get_config(self):
        # Without `weights`: a loaded model gets its own.
        return {
            "anchors": dataclasses.asdict(self.anchors),
            "frozen_stages": self.frozen_stages,
            "frozen_batch_norm": self.frozen_batch_norm,
            "batch_norm_momentum": self.batch_norm_momentum,
            "stride_in_1x1": self.stride_in_1x1,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        # Models that were saved without it have it there.
        return cls(AnchorGrid(**config.pop("anchors")), **{"stride_in_1x1": True, **config})


def rpn_loss(objectness, deltas, y, sample_weight=None):
    """Losses of an RPN for sampled or dense targets: see `RPN.compute_loss` for the arguments.

    Returns:
        (objectness_loss, box_loss), float32 scalars.

    Raises:
        ValueError: dense targets without weights.
    """
    if "anchor_index" in y:
        return sampled_rpn_loss(objectness, deltas, y["anchor_index"], y["anchor_state"], y["anchor_deltas"])
    if sample_weight is None:
        raise ValueError(
            'RPN expects dense targets with sample_weight {"objectness": (B, A), "deltas": (B, A)}. Received: None'
        )
    return dense_rpn_loss(
        objectness, deltas, y["objectness"], y["deltas"], sample_weight["objectness"], sample_weight["deltas"]
    )


def rpn_head(in_channels: int, channels: int, num_cell_anchors: int) -> keras.Model:
    """The head of an RPN, which all levels share.

    Args:
        in_channels: channels of the features.
        channels: channels of the hidden layer.
        num_cell_anchors: anchors per cell, K.

    Returns:
        A functional model from features (B, h, w, in_channels) to objectness logits (B, h, w, K) and deltas
        (B, h, w, 4 K); the four deltas of an anchor are next to each other.

    Source: torchvision's RPNHead, with its initial weights.
    """

    def conv(filters: int, kernel_size: int, name: str, activation: str | None = None) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            activation=activation,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name=name,
        )

    features = keras.Input((None, None, in_channels))
    hidden = conv(channels, 3, "conv", activation="relu")(features)
    outputs = [
        conv(num_cell_anchors, 1, "objectness")(hidden),
        conv(4 * num_cell_anchors, 1, "deltas")(hidden),
    ]
    return keras.Model(features, outputs, name="head")
