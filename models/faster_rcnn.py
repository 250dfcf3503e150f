"""Faster R-CNN: an RPN, and a head that says of each proposal which class it shows and how to move it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from detfeed import RoiTargets
from detfeed.models.backbone import resnet50_stage5
from detfeed.models.image_model import ImageModel, serialize_part
from detfeed.models.losses import roi_loss
from detfeed.models.proposals import propose_boxes
from detfeed.models.roi_align import roi_align
from detfeed.models.roi_sampling import RoiSampler
from detfeed.models.rpn import FPN_CHANNELS, RPN, rpn_loss

FPN_ROI_SIZE = 7  # as in torchvision and detectron2
C4_ROI_SIZE = 14  # as in detectron2; stage 5 halves it to 7
HEAD_CHANNELS = 1024


@keras.saving.register_keras_serializable("detfeed")
class FasterRCNN(ImageModel):
    """Faster R-CNN on an RPN, with a feature pyramid and two dense layers as head, or on C4 with stage 5 as head.

    Give it to `compile` with an optimizer only. What `x` holds decides how `fit` trains it:

    - Jointly, with the true boxes in `x` ("boxes", "class_ids", "ignore"): each step samples RoIs from its own
      proposals. `y` has the targets of the RPN. An AnchorTargetSequence with `boxes=True` feeds both.
    - From files, with "rois" in `x`, as a RoiTargetSequence feeds them: `y` has their targets, and the RPN does not
      learn. Set `model.rpn.head.trainable = False` then, or Keras warns that its weights have no gradients.

    No gradient flows through the coordinates of proposals. Losses are torchvision's; `fit` reports them as
    `rpn_objectness_loss`, `rpn_box_loss`, `roi_class_loss` and `roi_box_loss`, those without targets as 0.
    `DetectionModel(faster_rcnn)` returns boxes.

    Args:
        rpn: the RPN, new or trained. Its weights are shared, not copied. Its AnchorGrid decides between feature
            pyramid and C4. On C4, stage 5 starts from the weights that the RPN was made with, and is frozen as its
            arguments say.
        num_classes: C, classes of objects, without background.
        roi_targets: rules for the RoIs that joint training samples. None: RoiTargets(crowd="box"), 512 RoIs an image.
            `delta_weights` also hold for detections, so with RoIs from files give the rules that those were made with.
        train_pre_nms, train_post_nms, pre_nms, post_nms: limits of proposals in training and else, see `ProposalModel`.
        nms_iou, min_size: see `ProposalModel`.
        seed: of the sampled RoIs. None: another one each time.

    Call args:
        inputs: {"image": uint8 (B, H, W, 3), RGB, padded at the bottom and the right,
            "image_hw": int32 (B, 2), rows and columns that are not padding}, and for training either
            {"boxes": float32 (B, M, 4), xyxy pixels of the input, "class_ids": int32 (B, M), -1 in unused places,
            "ignore": bool or int8 (B, M)} or {"rois": float32 (B, R, 4), xyxy pixels of the input}.

    Returns:
        {"objectness", "deltas"} as RPN returns them, "rois": float32 (B, R, 4), xyxy pixels, proposals unless they were
        given, "class_logits": float32 (B, R, C + 1), background first, "box_deltas": float32 (B, R, C, 4), dx, dy, dw,
        dh of each class}; with true boxes in the inputs, the rois are the sampled ones, and their targets come along:
        "roi_class_ids" and "roi_deltas", see `RoiTargets`.

    Raises:
        ValueError: num_classes below 1 or unlike that of the rules; rules with crowd="mask".

    Source: Ren et al. 2015; Lin et al. 2017; layers as in torchvision's fasterrcnn_resnet50_fpn, and on C4 as in
        detectron2's: RoIs of 14x14, stage 5 with its stride of 2, the mean of the 7x7 that remain.
    """

    def __init__(
        self,
        rpn: RPN,
        num_classes: int,
        *,
        roi_targets: RoiTargets | None = None,
        train_pre_nms: int = 2000,
        train_post_nms: int = 2000,
        pre_nms: int = 1000,
        post_nms: int = 1000,
        nms_iou: float = 0.7,
        min_size: float = 1e-3,
        seed: int | None = None,
        name: str = "faster_rcnn",
    ):
        super().__init__(name=name)
        if num_classes < 1:
            raise ValueError(f"FasterRCNN expects at least one class. Received: num_classes={num_classes}")
        roi_targets = RoiTargets(crowd="box") if roi_targets is None else roi_targets
        if roi_targets.num_classes not in (None, num_classes):
            raise ValueError(
                f"FasterRCNN expects roi_targets for its {num_classes} classes. "
                f"Received: num_classes={roi_targets.num_classes}"
            )
        self.rpn = rpn
        self.num_classes = num_classes
        self.roi_targets = roi_targets
        self.train_limits = {"pre_nms": train_pre_nms, "post_nms": train_post_nms}
        self.limits = {"pre_nms": pre_nms, "post_nms": post_nms}
        self.nms_iou = nms_iou
        self.min_size = min_size
        self.sampler = RoiSampler(roi_targets, seed=seed)
        if rpn.pyramid is not None:
            self.roi_size = FPN_ROI_SIZE
            self.head = two_mlp_head(FPN_CHANNELS, num_classes)
        else:
            self.roi_size = C4_ROI_SIZE
            stage5 = resnet50_stage5(
                weights=rpn.weights_source,
                frozen_stages=rpn.frozen_stages,
                frozen_batch_norm=rpn.frozen_batch_norm,
                batch_norm_momentum=rpn.batch_norm_momentum,
                stride_in_1x1=rpn.stride_in_1x1,
            )
            self.head = stage5_head(stage5, num_classes)
        self.rpn_objectness_loss = keras.metrics.Mean(name="rpn_objectness_loss")
        self.rpn_box_loss = keras.metrics.Mean(name="rpn_box_loss")
        self.roi_class_loss = keras.metrics.Mean(name="roi_class_loss")
        self.roi_box_loss = keras.metrics.Mean(name="roi_box_loss")
        # Every part above has its weights by now: let load_weights and count_params work before the first call.
        self.built = True

    def call(self, inputs, training=None):
        levels = self.rpn.extract_features(inputs, training=training)
        outputs = self.rpn.score_anchors(levels)
        if "rois" in inputs:
            outputs["rois"] = inputs["rois"]
        else:
            proposals = self._propose(outputs, inputs, training)
            if "boxes" in inputs:
                truth = (inputs[name] for name in ("boxes", "class_ids", "ignore", "image_hw"))
                outputs.update(self.sampler(proposals, *truth))
            else:
                outputs["rois"] = proposals
        outputs["class_logits"], outputs["box_deltas"] = self._classify(levels, outputs["rois"], training)
        return outputs

    def _propose(self, outputs, inputs, training):
        outputs = {name: ops.stop_gradient(output) for name, output in outputs.items()}
        limits = self.train_limits if training else self.limits
        proposals, _ = propose_boxes(
            self.rpn.anchors, outputs, inputs, nms_iou=self.nms_iou, min_size=self.min_size, **limits
        )
        return proposals

    def _classify(self, levels, rois, training):
        strides = self.rpn.anchors.strides
        if self.rpn.pyramid is not None:
            levels, strides = levels[:-1], strides[:-1]  # P6 is for anchors only
        pooled = roi_align(levels, rois, strides=strides, output_size=self.roi_size)
        batch, num_rois = ops.shape(rois)[:2]
        pooled = ops.reshape(pooled, (-1, *pooled.shape[2:]))
        class_logits, box_deltas = self.head(pooled, training=training)
        return (
            ops.cast(ops.reshape(class_logits, (batch, num_rois, self.num_classes + 1)), "float32"),
            ops.cast(ops.reshape(box_deltas, (batch, num_rois, self.num_classes, 4)), "float32"),
        )

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss that fit and evaluate use.

        Args:
            y: targets of the RPN as for `RPN.compute_loss`; or, with RoIs from files, {"roi_class_ids": int32 (B, R),
                "roi_deltas": float32 (B, R, 4) or (B, R, C, 4)}; or both.
            y_pred: what the model returned, in joint training with the targets of the sampled RoIs.
            sample_weight: for dense targets of the RPN as for `RPN.compute_loss`; else None.

        Returns:
            A float32 scalar: the sum of the four losses and of the losses of any regularisers.

        Raises:
            ValueError: there are no targets for the RoIs; in joint training there are none for the RPN.
        """
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        roi_targets = y if "roi_class_ids" in y else y_pred
        if "roi_class_ids" not in roi_targets:
            raise ValueError(
                'FasterRCNN expects either "boxes", "class_ids" and "ignore" in x, or "rois" in x with "roi_class_ids" '
                f'and "roi_deltas" in y. Received: y with {sorted(y)}, and no boxes'
            )
        losses = {}
        if "anchor_index" in y or "objectness" in y:
            losses[self.rpn_objectness_loss], losses[self.rpn_box_loss] = rpn_loss(
                y_pred["objectness"], y_pred["deltas"], y, sample_weight
            )
        elif roi_targets is y_pred:
            raise ValueError(
                f"FasterRCNN expects y with the targets of the RPN beside boxes in x. Received: y with {sorted(y)}"
            )
        losses[self.roi_class_loss], losses[self.roi_box_loss] = roi_loss(
            y_pred["class_logits"], y_pred["box_deltas"], roi_targets["roi_class_ids"], roi_targets["roi_deltas"]
        )
        # Keras weights its metric `loss` by the batch size. With the same weights these four metrics are its parts.
        batch = ops.shape(y_pred["objectness"])[0]
        for metric, loss in losses.items():
            metric.update_state(loss, sample_weight=batch)
        # Keras's own way to add up losses: it also divides by the replicas of a tf.distribute strategy.
        return sum(self._aggregate_additional_loss(loss) for loss in [*losses.values(), *self.losses])

    @property
    def metrics(self):
        """As Keras's, without the four losses of this model where other losses were compiled."""
        own = (self.rpn_objectness_loss, self.rpn_box_loss, self.roi_class_loss, self.roi_box_loss)
        return [metric for metric in super().metrics if self.loss is None or metric not in own]

    def get_config(self):
        rules = self.roi_targets
        names = ("foreground_iou", "background_low", "ignore_ioa", "num_samples", "positive_fraction", "num_classes")
        return {
            "rpn": serialize_part(self.rpn),
            "num_classes": self.num_classes,
            "roi_targets": {
                **{name: getattr(rules, name) for name in names},
                "delta_weights": list(rules.delta_weights),
            },
            **{f"train_{name}": limit for name, limit in self.train_limits.items()},
            **self.limits,
            "nms_iou": self.nms_iou,
            "min_size": self.min_size,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        rules = config.pop("roi_targets")
        rules["delta_weights"] = tuple(rules["delta_weights"])
        rpn = keras.saving.deserialize_keras_object(config.pop("rpn"))
        return cls(rpn, roi_targets=RoiTargets(crowd="box", **rules), **config)


def two_mlp_head(in_channels: int, num_classes: int) -> keras.Model:
    """The head on a feature pyramid: two dense layers, then the class and the deltas.

    Returns:
        A functional model from pooled features (N, 7, 7, in_channels) to class logits (N, C + 1), background first, and
        deltas (N, 4 C), those of one class side by side.

    Source: torchvision's TwoMLPHead and FastRCNNPredictor, initial weights included (biases start at 0).
    """
    pooled = keras.Input((FPN_ROI_SIZE, FPN_ROI_SIZE, in_channels))
    hidden = keras.layers.Flatten()(pooled)
    for name in ("dense6", "dense7"):
        hidden = _dense(HEAD_CHANNELS, name, activation="relu")(hidden)
    return keras.Model(pooled, _predictor(hidden, num_classes), name="roi_head")


def stage5_head(stage5: keras.Model, num_classes: int) -> keras.Model:
    """The head on C4: stage 5 of the backbone, its mean over the RoI, then the class and the deltas.

    Args:
        stage5: as `resnet50_stage5` makes it.
        num_classes: C.

    Returns:
        A functional model from pooled features (N, 14, 14, 1024) to what `two_mlp_head` returns.

    Source: He et al. 2016, appendix A; detectron2's Res5ROIHeads.
    """
    pooled = keras.Input((C4_ROI_SIZE, C4_ROI_SIZE, stage5.input.shape[-1]))
    hidden = keras.layers.GlobalAveragePooling2D()(stage5(pooled))
    return keras.Model(pooled, _predictor(hidden, num_classes), name="roi_head")


def _predictor(hidden, num_classes: int):
    return [_dense(num_classes + 1, "class_logits")(hidden), _dense(4 * num_classes, "box_deltas")(hidden)]


def _dense(units: int, name: str, activation: str | None = None) -> keras.layers.Layer:
    # As torch's Linear starts.
    start = keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")
    return keras.layers.Dense(units, activation=activation, kernel_initializer=start, name=name)
