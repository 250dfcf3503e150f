#!/usr/bin/env python
"""Train an RPN in several processes, on one machine or many, with Keras on JAX. Each is fed its own shard.

Start it once per process, with the same arguments but for --index:

    KERAS_BACKEND=jax python scripts/train_distributed.py --coordinator HOST:PORT --count 2 --index 0 ...
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from data_arguments import add_data_arguments, choose_feed, read_training
from detfeed.commands.parser import Parser, not_negative, whole
from detfeed.writing import replacing


def build_parser() -> Parser:
    parser = Parser(description=__doc__)
    run = parser.add_argument_group("run")
    run.add_argument("--coordinator", required=True, metavar="HOST:PORT", help="address of process 0")
    run.add_argument("--count", type=whole(1), required=True, metavar="N", help="number of processes")
    run.add_argument("--index", type=whole(0), required=True, metavar="N", help="number of this process, from 0")
    run.add_argument("--out", type=Path, metavar="FILE", help="where process 0 saves the weights, *.weights.h5")
    run.add_argument("--model", choices=("fpn", "c4"), default="fpn", metavar="NAME", help="fpn or c4 [fpn]")
    run.add_argument("--epochs", type=whole(1), default=10, metavar="N", help="passes over the data [10]")
    run.add_argument("--learning-rate", type=not_negative, default=2e-4, metavar="RATE", help="of Adam [2e-4]")
    run.add_argument("--workers", type=whole(0), default=2, metavar="N", help="processes that make batches [2]")
    add_data_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.index >= arguments.count:
        parser.error(f"--index: expected less than --count, {arguments.count}, got {arguments.index}; count from 0")
    with parser.one_line_errors():
        feed = choose_feed(arguments)
        data = read_training(arguments)
    import jax

    # Before anything else asks JAX for its devices.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(arguments.coordinator, arguments.count, arguments.index)
    import keras

    from detfeed import AnchorGrid, AnchorTargetSequence
    from detfeed.models import RPN

    if keras.backend.backend() != "jax":
        parser.error(
            f"KERAS_BACKEND: expected jax, got {keras.backend.backend()}; set it to jax: on other backends Keras does "
            "not train in several processes"
        )
    # The sequence has a shard of the data already; auto_shard_dataset would cut that again.
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    keras.utils.set_random_seed(arguments.seed)  # the same weights everywhere
    anchors = AnchorGrid.fpn() if arguments.model == "fpn" else AnchorGrid.c4()
    sequence = AnchorTargetSequence(
        data,
        anchors,
        **feed,
        shard=(arguments.index, arguments.count),
        drop_last=True,  # JAX joins the processes' batches, which needs one shape
        workers=arguments.workers,
        use_multiprocessing=True,
    )
    rpn = RPN(anchors, weights=None)
    rpn.compile(optimizer=keras.optimizers.Adam(arguments.learning_rate))
    # Keras's own shuffle would differ between the processes, and so would the canvases of their batches.
    history = rpn.fit(sequence, epochs=arguments.epochs, shuffle=False, verbose=2 if arguments.index == 0 else 0)
    sequence.close()
    if arguments.out and arguments.index == 0:
        with replacing(arguments.out) as path:
            rpn.save_weights(path)
    weights = hashlib.sha256(b"".join(weight.tobytes() for weight in rpn.get_weights())).hexdigest()
    # All processes must print the same line.
    print(f"losses {history.history['loss']}, weights {weights[:16]}", flush=True)


if __name__ == "__main__":
    main()
