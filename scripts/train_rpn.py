#!/usr/bin/env python
"""Train a region proposal network on COCO, Pascal VOC or the built-in shapes, and score its proposals."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_arguments import (
    add_data_arguments,
    add_validation_arguments,
    choose_feed,
    not_negative,
    positive,
    read_training,
    read_validation,
    share,
)
from detfeed import Replace
from detfeed.recall import MAX_PROPOSALS

VALIDATION = ("val_coco", "val_images", "val_voc", "val_split")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, metavar="DIR", help="run folder (default runs/rpn, or that of --evaluate)")
    run.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in this folder, with its settings")
    run.add_argument(
        "--evaluate",
        type=Path,
        metavar="DIR",
        help="only score the weights of the run in this folder, with its settings",
    )
    add_data_arguments(parser)
    add_validation_arguments(parser)
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=("fpn", "c4"), default="fpn", help="default fpn")
    model.add_argument(
        "--weights", default="none", metavar="none|imagenet|FILE", help="backbone weights (default none)"
    )
    model.add_argument("--frozen-stages", type=int, metavar="N", help="default 2 with weights, else 0")
    model.add_argument(
        "--frozen-batch-norm",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="default: with weights",
    )
    model.add_argument("--batch-norm-momentum", type=float, default=0.9, metavar="SHARE", help="default 0.9")
    model.add_argument("--anchor-sizes", type=float, nargs="+", metavar="PIXELS", help="default 32 64 128 256 512")
    workers = parser.add_argument_group("workers")
    workers.add_argument("--workers", type=not_negative, default=1, help="default 1")
    workers.add_argument("--use-multiprocessing", action="store_true", help="processes instead of threads")
    workers.add_argument(
        "--on-error",
        choices=("raise", "replace"),
        default="raise",
        help="stop at a training image that can't be read, or replace it and write that into replaced.jsonl of the run "
        "folder; default raise",
    )
    workers.add_argument(
        "--max-replaced",
        type=share,
        default=0.01,
        metavar="SHARE",
        help="of the training images, that may be replaced before that is an error; default 0.01",
    )
    recipe = parser.add_argument_group("recipe (the defaults train from random weights)")
    recipe.add_argument("--epochs", type=positive, default=10, help="default 10")
    recipe.add_argument("--steps", type=positive, help="upper limit of steps in all")
    recipe.add_argument("--optimizer", choices=("adam", "adamw", "sgd"), default="adam", help="default adam")
    recipe.add_argument("--learning-rate", type=float, default=2e-4, help="the highest; default 2e-4")
    recipe.add_argument("--warmup-steps", type=int, default=100, help="default 100")
    recipe.add_argument("--decay", choices=("cosine", "none"), default="cosine", help="default cosine")
    recipe.add_argument("--weight-decay", type=float, default=0.0, help="default 0")
    recipe.add_argument("--clip-norm", type=float, help="upper limit of the gradients' norm; default none")
    recipe.add_argument("--mixed-precision", choices=("none", "float16", "bfloat16"), default="none")
    recipe.add_argument(
        "--backup-every", type=positive, metavar="STEPS", help="what --resume starts from; default: after each epoch"
    )
    recipe.add_argument("--validate-every", type=positive, default=1, metavar="EPOCHS", help="default 1")
    return parser


def parse_arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """The arguments; those of an earlier run that is resumed or evaluated hold where the command line says nothing."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    earlier = arguments.resume or arguments.evaluate
    if arguments.resume and arguments.evaluate:
        parser.error("give --resume or --evaluate, not both")
    if earlier:
        settings = earlier / "settings.json"
        if not settings.is_file():
            parser.error(f"{settings}: expected the settings of an earlier run, found no file")
        stored = json.loads(settings.read_text())
        for name in ("coco", "images", "voc", "val_coco", "val_images", "val_voc", "shapes_dir"):
            stored[name] = Path(stored[name]) if stored[name] else None
        if any(getattr(arguments, name) for name in VALIDATION):
            # Other validation data than the run's own, and not a mixture of both.
            stored.update(dict.fromkeys(VALIDATION))
        parser.set_defaults(**stored)
        arguments = parser.parse_args(argv)
        if arguments.resume and arguments.out:
            parser.error("--resume goes on in the folder of the run, without --out")
    arguments.out = arguments.out or earlier or Path("runs/rpn")
    return arguments, parser


def save_settings(arguments: argparse.Namespace) -> None:
    kept: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in ("resume", "evaluate", "out")
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "settings.json").write_text(json.dumps(kept, indent=2) + "\n")


def main(argv: list[str] | None = None) -> None:
    arguments, parser = parse_arguments(argv)
    if not (arguments.resume or arguments.evaluate) and (arguments.out / "backup").exists():
        parser.error(
            f"{arguments.out} holds an earlier run: go on with --resume {arguments.out}, or give another --out"
        )
    feed = choose_feed(arguments, parser)
    val_set = read_validation(arguments, parser)
    if arguments.evaluate and val_set is None:
        parser.error("--evaluate needs validation data, such as --val-coco or --val-voc")
    if arguments.evaluate and not (arguments.evaluate / "rpn.weights.h5").is_file():
        parser.error(f"{arguments.evaluate} holds no rpn.weights.h5: the run was not finished; go on with --resume")
    if arguments.weight_decay and arguments.optimizer == "adam":
        parser.error("--weight-decay goes with --optimizer adamw or sgd")
    train_set = None if arguments.evaluate else read_training(arguments, parser)
    if train_set is not None:
        print(f"training on {train_set}")
    print(f"scored on {val_set}" if val_set else "no validation data: give --val-coco or --val-voc for scores")

    # Keras starts here and not above, so that mistakes in the arguments are told at once.
    import keras

    from detfeed import AnchorGrid, AnchorTargetSequence, DetectionSequence
    from detfeed.models import RPN, ProposalModel, Schedule, score, train

    keras.utils.set_random_seed(arguments.seed)
    if arguments.mixed_precision != "none":
        keras.mixed_precision.set_global_policy(f"mixed_{arguments.mixed_precision}")
    sizes: dict[str, Any] = {}
    if arguments.anchor_sizes:
        sizes["sizes"] = tuple(arguments.anchor_sizes)
    anchors = AnchorGrid.fpn(**sizes) if arguments.model == "fpn" else AnchorGrid.c4(**sizes)
    pretrained = arguments.weights != "none"
    kept_weights = any((arguments.out / "backup").glob("*.weights.h5"))
    rpn = RPN(
        anchors,
        # An earlier run's own weights replace the backbone's, if it got as far as keeping some.
        weights=arguments.weights if pretrained and not (arguments.evaluate or kept_weights) else None,
        frozen_stages=(2 if pretrained else 0) if arguments.frozen_stages is None else arguments.frozen_stages,
        batch_norm_momentum=arguments.batch_norm_momentum,
        frozen_batch_norm=pretrained if arguments.frozen_batch_norm is None else arguments.frozen_batch_norm,
    )
    model = ProposalModel(rpn)
    validation = None
    if val_set is not None:
        validation = DetectionSequence(
            val_set,
            targets=lambda sample: {},
            batch_size=arguments.batch_size,
            resize=feed["resize"],
            shuffle=False,
        )
    recall: dict[str, float] = {}
    if train_set is None:
        rpn.load_weights(arguments.evaluate / "rpn.weights.h5")
    else:
        save_settings(arguments)
        sequence = AnchorTargetSequence(
            train_set,
            anchors,
            **feed,
            workers=arguments.workers,
            use_multiprocessing=arguments.use_multiprocessing,
            on_error=Replace(arguments.max_replaced, arguments.out / "replaced.jsonl")
            if arguments.on_error == "replace"
            else "raise",
        )
        schedule = Schedule(
            epochs=arguments.epochs,
            steps=arguments.steps,
            optimizer=arguments.optimizer,
            learning_rate=arguments.learning_rate,
            warmup_steps=arguments.warmup_steps,
            decay=arguments.decay,
            weight_decay=arguments.weight_decay,
            clip_norm=arguments.clip_norm,
        )
        recall = train(
            model,
            sequence,
            validation,
            arguments.out,
            schedule=schedule,
            validate_every=arguments.validate_every,
            backup_every=arguments.backup_every,
        )
    if validation is not None:
        # A run that was finished before it was resumed trains no epoch and scores nothing.
        print_recall(recall if "AR@100" in recall else score(model, validation, arguments.out))
    print(f"wrote {arguments.out}")


def print_recall(recall: dict[str, float]) -> None:
    table = Table(title="proposals against the validation boxes")
    for column in ("proposals an image", "AR", "AR small", "AR medium", "AR large", "recall at IoU 0.5"):
        table.add_column(column, justify="right")
    for most in MAX_PROPOSALS:
        names = [
            f"AR@{most}",
            *(f"AR@{most}_{size}" for size in ("small", "medium", "large")),
            f"recall@{most}",
        ]
        table.add_row(str(most), *(f"{recall[name]:.3f}" for name in names))
    Console().print(table)


if __name__ == "__main__":
    main()
