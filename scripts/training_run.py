"""The command line that train_rpn.py and train_faster_rcnn.py share: the options of a training run, and the run."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from data_arguments import add_data_arguments, choose_feed, read_training, read_validation
from detfeed import Annotations, Replace, anchor_coverage, suggest_anchors
from detfeed.commands.anchor_options import add_anchor_options, chosen_grid
from detfeed.commands.parser import Parser, not_negative, positive, share, whole
from detfeed.errors import AnnotationError
from detfeed.readers.formats import FORMATS, LAYOUT, TRAINING, VALIDATION
from detfeed.report.run import DETECTOR
from detfeed.writing import replace_file

# Keras is imported after the arguments are checked and the data is read: it takes seconds.
if TYPE_CHECKING:
    from detfeed.models import RPN, DetectionModel, ProposalModel, Schedule

    Model: TypeAlias = ProposalModel | DetectionModel

# By what each trains.
SCRIPTS = {"ProposalModel": "train_rpn.py", "DetectionModel": "train_faster_rcnn.py"}
LOOKED_AT = 2000  # images that the anchors are compared with


def build_parser(description: str | None, out: Path) -> Parser:
    """A parser of all options that both scripts have.

    Args:
        description: of the script.
        out: the run folder unless another is given.
    """
    parser = Parser(description=description)
    parser.set_defaults(default_out=out, num_batches=None)
    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, metavar="DIR", help=f"run folder [{out}, or that of --evaluate]")
    run.add_argument("--resume", type=Path, metavar="DIR", help="continue the run in this folder, with its settings")
    run.add_argument("--evaluate", type=Path, metavar="DIR", help="only score the weights of the run in this folder")
    run.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        metavar="NAME",
        help="weights to evaluate: of the epoch scored best, or of the last [best]",
    )
    add_data_arguments(parser, validation=True)
    _add_model_options(parser)
    _add_worker_options(parser)
    _add_recipe_options(parser)
    return parser


def _add_model_options(parser: Parser) -> None:
    model = add_anchor_options(parser, title="model")
    model.add_argument(
        "--anchors",
        choices=("given", "fit"),
        default="given",
        metavar="HOW",
        help="given, or fit sizes and ratios to the training data [given]",
    )
    model.add_argument(
        "--weights", default="none", metavar="NAME", help="of the backbone: none, imagenet, a file [none]"
    )
    model.add_argument("--frozen-stages", type=whole(0), metavar="N", help="of the backbone [with weights 2, else 0]")
    model.add_argument(
        "--frozen-batch-norm",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="of the backbone [with weights, else not]",
    )
    model.add_argument(
        "--stride-in-1x1",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="of the backbone's stages, not in their 3x3 [with weights, else not]",
    )
    model.add_argument(
        "--batch-norm-momentum",
        type=share,
        default=0.9,
        metavar="SHARE",
        help="share of the old mean that is kept [0.9]",
    )


def _add_worker_options(parser: Parser) -> None:
    workers = parser.add_argument_group("workers")
    workers.add_argument("--workers", type=whole(0), default=1, metavar="N", help="how many [1]")
    workers.add_argument("--use-multiprocessing", action="store_true", help="processes instead of threads")
    workers.add_argument(
        "--on-error",
        choices=("raise", "replace"),
        default="raise",
        metavar="POLICY",
        help="unreadable training images: raise or replace [raise]; replace lists them in replaced.jsonl of the run "
        "folder",
    )
    workers.add_argument(
        "--max-replaced", type=share, default=0.01, metavar="SHARE", help="of training images, at most [0.01]"
    )


def _add_recipe_options(parser: Parser) -> None:
    recipe = parser.add_argument_group("recipe (the defaults train from random weights)")
    recipe.add_argument("--epochs", type=whole(1), default=10, metavar="N", help="passes over the data [10]")
    recipe.add_argument("--steps", type=whole(1), metavar="N", help="upper limit of steps in all [none]")
    recipe.add_argument(
        "--optimizer",
        choices=("adam", "adamw", "sgd"),
        default="adam",
        metavar="NAME",
        help="adam, adamw or sgd [adam]",
    )
    recipe.add_argument("--learning-rate", type=not_negative, default=2e-4, metavar="RATE", help="the highest [2e-4]")
    recipe.add_argument(
        "--warmup-steps", type=whole(0), default=100, metavar="N", help="over which it rises to that [100]"
    )
    recipe.add_argument(
        "--decay", choices=("cosine", "none"), default="cosine", metavar="NAME", help="cosine or none [cosine]"
    )
    recipe.add_argument("--weight-decay", type=not_negative, default=0.0, metavar="RATE", help="of adamw and sgd [0]")
    recipe.add_argument("--clip-norm", type=positive, metavar="NORM", help="upper limit of the gradients' norm [none]")
    recipe.add_argument(
        "--mixed-precision",
        choices=("none", "float16", "bfloat16"),
        default="none",
        metavar="TYPE",
        help="none, float16 or bfloat16 [none]",
    )
    recipe.add_argument("--backup-every", type=whole(1), metavar="N", help="steps between backups [an epoch]")
    recipe.add_argument("--validate-every", type=whole(1), default=1, metavar="N", help="epochs between scores [1]")


def parse_arguments(parser: Parser, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the arguments; a run that is resumed or evaluated gives the settings that the command line does not.

    Raises:
        argparse.ArgumentError: options do not go together, or the run has no settings.
    """
    arguments = parser.parse_args(argv)
    if arguments.resume and arguments.evaluate:
        raise argparse.ArgumentError(None, "--evaluate: expected no --resume with it, got both; give one")
    earlier = arguments.resume or arguments.evaluate
    if earlier:
        parser.set_defaults(**_earlier_settings(earlier / "settings.json", arguments))
        arguments = parser.parse_args(argv)
    if arguments.resume and arguments.out:
        raise argparse.ArgumentError(
            None, f"--out: expected none with --resume, got {arguments.out}; a run continues in its own folder"
        )
    if earlier and arguments.anchors == "fit":
        raise argparse.ArgumentError(
            None, "--anchors: expected fit for a new run only, got it with an earlier one; a run keeps its anchors"
        )
    arguments.out = arguments.out or earlier or arguments.default_out
    return arguments


def _earlier_settings(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of an earlier run, without the data that the command line replaces.

    Data is replaced as a whole: a mixture of the run's own and the command line's is data that nobody asked for.
    """
    try:
        stored: dict[str, Any] = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        option = "--resume" if arguments.resume else "--evaluate"
        got = getattr(error, "strerror", None) or f"a file that is no JSON of settings: {error}"
        raise argparse.ArgumentError(
            None, f"{option}: expected the settings of an earlier run in {path}, got {got}; give the folder of a run"
        ) from None
    stored.setdefault("stride_in_1x1", True)  # runs from before it was an option
    if any(getattr(arguments, name) is not None for name in FORMATS):
        stored.update(dict.fromkeys((*TRAINING, *VALIDATION)))
    elif any(getattr(arguments, name) is not None for name in VALIDATION):
        stored.update(dict.fromkeys(VALIDATION))
        own = [format for name, format in FORMATS.items() if stored.get(name) is not None]
        unused = [name for name in LAYOUT if not any(name in format.keywords for format in own)]
        stored.update(dict.fromkeys(unused))  # these were options of the validation data
    return stored


def save_settings(arguments: argparse.Namespace) -> None:
    kept: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in ("resume", "evaluate", "checkpoint", "out", "default_out")
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    replace_file(arguments.out / "settings.json", (json.dumps(kept, indent=2) + "\n").encode())


def check_run(arguments: argparse.Namespace, kind: str) -> None:
    """Check what can be checked before data is read.

    Raises:
        argparse.ArgumentError: options do not go together, or do not fit the run in the folder.
    """
    earlier = arguments.resume or arguments.evaluate
    found = _kind_of_run(earlier) if earlier else None
    if found not in (None, kind):
        option = "--resume" if arguments.resume else "--evaluate"
        raise argparse.ArgumentError(
            None,
            f"{option}: expected a run of {SCRIPTS[kind]}, got {earlier}, one of {SCRIPTS[found]}; use that script",
        )
    if not (arguments.resume or arguments.evaluate) and (arguments.out / "backup").exists():
        raise argparse.ArgumentError(
            None,
            f"--out: expected a folder without a run, got {arguments.out}; go on with --resume {arguments.out}, or "
            "give another folder",
        )
    if arguments.evaluate and not any(arguments.evaluate.glob("*.weights.h5")):
        raise argparse.ArgumentError(
            None,
            f"--evaluate: expected a run with weights, which are saved after each epoch, got {arguments.evaluate}; go "
            f"on with --resume {arguments.evaluate}",
        )
    if arguments.weight_decay and arguments.optimizer == "adam":
        raise argparse.ArgumentError(
            None, "--weight-decay: expected --optimizer adamw or sgd with it, got adam; choose one, or leave it out"
        )


def _kind_of_run(folder: Path) -> str | None:
    """The type of model in a run folder, without Keras; None if there is none that is known."""
    try:
        kind = json.loads((folder / DETECTOR).read_text(encoding="utf-8"))["model"]["class_name"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return kind if kind in SCRIPTS else None


def check_resumed(arguments: argparse.Namespace, model: Model, class_names: Sequence[str]) -> None:
    """Check that a model is the one that a run trained, before anything is written into its folder.

    Raises:
        argparse.ArgumentError: it has other anchors, another backbone or other classes.
        DetfeedError: the folder's description of the model can't be read.
    """
    from detfeed.models import DetectionModel
    from detfeed.models.detector import read_description, trained_part

    if not (arguments.resume / DETECTOR).exists():  # a run from before there was one, or that was stopped at once
        return
    earlier = read_description(arguments.resume)
    rpns = [getattr(part, "rpn", part) for part in map(trained_part, (earlier.model, model))]
    compared: list[tuple[str, Any, Any]] = [
        ("strides of --model", *(rpn.anchors.strides for rpn in rpns)),
        ("anchors", *(rpn.anchors for rpn in rpns)),
        ("--stride-in-1x1", *(rpn.stride_in_1x1 for rpn in rpns)),
    ]
    if isinstance(model, DetectionModel):
        compared.append(("classes", list(earlier.class_names), list(class_names)))
    for what, expected, got in compared:
        if expected != got:
            raise argparse.ArgumentError(
                None,
                f"--resume: expected the {what} of the run in {arguments.resume}, {expected}, got {got}; give the "
                "run's own data and options, or begin another run",
            )


def read_data(arguments: argparse.Namespace) -> tuple[Annotations | None, Annotations | None]:
    """Training data, None if the run is only evaluated; and validation data, None if there is none.

    Raises:
        argparse.ArgumentError: options do not go together.
        DetfeedError: the data can't be read.
    """
    val_set = read_validation(arguments)
    if arguments.evaluate and val_set is None:
        raise argparse.ArgumentError(
            None, "--evaluate: expected validation data with it, got none; give it, such as --val-coco or --val-voc"
        )
    train_set = None if arguments.evaluate else read_training(arguments)
    if train_set is not None:
        print(f"training on {train_set}")
    if val_set is None:
        print("no validation data, so nothing is scored: give it with an option such as --val-coco")
    elif not len(val_set):
        raise AnnotationError(f"{val_set.source}: expected validation images, got none")
    else:
        print(f"scored on {val_set}")
    return train_set, val_set


def look_at_anchors(arguments: argparse.Namespace, data: Annotations, feed: dict[str, Any]) -> None:
    """Say how well the anchors cover the objects; with --anchors fit, change their options if others cover more.

    Raises:
        argparse.ArgumentError: sizes that the levels can't share evenly.
    """
    of_feed: dict[str, Any] = {name: feed[name] for name in ("resize", "seed")} | {"max_images": LOOKED_AT}
    if feed["augment"] != "flip":  # which changes neither sizes nor shapes, and takes some milliseconds an image
        of_feed["augment"] = feed["augment"]
    grid = chosen_grid(arguments)
    if arguments.anchors == "given":
        print(anchor_coverage(data, grid, **of_feed).summary_line())
        return
    suggestion = suggest_anchors(data, grid, **of_feed)
    print(suggestion.summary_line())
    if suggestion.is_better and suggestion.choice is not None:
        arguments.anchor_sizes = [size for level in suggestion.choice.sizes for size in level]
        arguments.anchor_ratios = list(suggestion.choice.ratios)
    arguments.anchors = "given"  # by the settings of the run, which is resumed with the same anchors


def build_rpn(arguments: argparse.Namespace) -> RPN:
    """The RPN that the options of the model ask for."""
    from detfeed.models import RPN

    pretrained = arguments.weights != "none"
    # The run's own weights, where it has any, replace those of the backbone.
    has_own = any((arguments.out / "backup").glob("*.weights.h5"))
    return RPN(
        chosen_grid(arguments),
        weights=arguments.weights if pretrained and not has_own else None,
        frozen_stages=(2 if pretrained else 0) if arguments.frozen_stages is None else arguments.frozen_stages,
        batch_norm_momentum=arguments.batch_norm_momentum,
        frozen_batch_norm=pretrained if arguments.frozen_batch_norm is None else arguments.frozen_batch_norm,
        stride_in_1x1=pretrained if arguments.stride_in_1x1 is None else arguments.stride_in_1x1,
    )


def build_schedule(arguments: argparse.Namespace) -> Schedule:
    from detfeed.models import Schedule

    return Schedule(
        epochs=arguments.epochs,
        steps=arguments.steps,
        optimizer=arguments.optimizer,
        learning_rate=arguments.learning_rate,
        warmup_steps=arguments.warmup_steps,
        decay=arguments.decay,
        weight_decay=arguments.weight_decay,
        clip_norm=arguments.clip_norm,
    )


def run(
    arguments: argparse.Namespace,
    parser: Parser,
    kind: str,
    build_model: Callable[[argparse.Namespace, Annotations], Model],
    **of_sequence: Any,
) -> dict[str, float]:
    """Train and score, or only score, as the arguments say.

    Args:
        arguments: parsed by `parse_arguments`.
        parser: for errors.
        kind: the type of model that the script trains, one of SCRIPTS.
        build_model: makes a new model for the training data.
        of_sequence: more arguments of the AnchorTargetSequence.

    Returns:
        The figures of the last validation, empty without validation data.
    """
    with parser.one_line_errors():
        check_run(arguments, kind)
        feed = choose_feed(arguments)
        train_set, val_set = read_data(arguments)
        if train_set is not None and len(train_set):
            look_at_anchors(arguments, train_set, feed)

    # By itself TensorFlow takes oneDNN's kernels only on processors with AVX-512. With AVX2 they take 0.6 of the CPU
    # time of a step of the RPN (4 images of 96x128).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # without what TensorFlow only notes
    import keras

    from detfeed import DetectionSequence
    from detfeed.models import DetectionModel, load_detector, score
    from detfeed.models.scoring import main_figures

    keras.utils.set_random_seed(arguments.seed)
    if arguments.mixed_precision != "none":
        keras.mixed_precision.set_global_policy(f"mixed_{arguments.mixed_precision}")
    if train_set is None:
        with parser.one_line_errors():
            detector = load_detector(arguments.evaluate, best=arguments.checkpoint == "best")
        model, class_names = detector.model, detector.class_names
    else:
        with parser.one_line_errors():
            model, class_names = build_model(arguments, train_set), train_set.class_names
            if arguments.resume:
                check_resumed(arguments, model, class_names)
    validation = None
    if val_set is not None:
        if isinstance(model, DetectionModel):
            with parser.one_line_errors():
                val_set = val_set.with_classes(class_names)
        sizes = {name: feed[name] for name in ("batch_size", "resize")}
        validation = DetectionSequence(val_set, targets=lambda sample: {}, shuffle=False, **sizes)
    figures: dict[str, float] = {}
    if train_set is not None:
        with parser.one_line_errors():
            figures = _train(arguments, model, train_set, validation, feed | of_sequence)
    if validation is None:
        return {}
    # A run that was finished before it was resumed trains no epoch, and so has no figures yet.
    return figures if main_figures(model)[0] in figures else score(model, validation, arguments.out)


def _train(
    arguments: argparse.Namespace, model: Model, train_set: Annotations, validation: Any, of_sequence: dict[str, Any]
) -> dict[str, float]:
    from detfeed import AnchorTargetSequence
    from detfeed.models import train
    from detfeed.models.detector import trained_part

    trained = trained_part(model)
    replaces = arguments.on_error == "replace"
    sequence = AnchorTargetSequence(
        train_set,
        getattr(trained, "rpn", trained).anchors,
        **of_sequence,
        workers=arguments.workers,
        use_multiprocessing=arguments.use_multiprocessing,
        on_error=Replace(arguments.max_replaced, arguments.out / "replaced.jsonl") if replaces else "raise",
    )
    if arguments.resume and arguments.num_batches not in (None, len(sequence)):
        raise argparse.ArgumentError(
            None,
            f"--resume: expected {arguments.num_batches} batches an epoch, as the run had, got {len(sequence)}, so "
            "that the place where it stopped is not known; give the same images and --batch-size",
        )
    arguments.num_batches = len(sequence)
    save_settings(arguments)
    try:
        return train(
            model,
            sequence,
            validation,
            arguments.out,
            schedule=build_schedule(arguments),
            validate_every=arguments.validate_every,
            backup_every=arguments.backup_every,
        )
    except KeyboardInterrupt:
        if (arguments.out / "backup").exists():
            print(f"\nstopped; --resume {arguments.out} goes on", file=sys.stderr)
        raise


def shown(figures: dict[str, float], name: str) -> str:
    """A figure with three digits, "-" where it does not exist."""
    figure = figures.get(name, math.nan)
    return "-" if math.isnan(figure) else f"{figure:.3f}"
