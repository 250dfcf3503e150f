#!/usr/bin/env python
"""Train an RPN in several processes, on one machine or many, with Keras on JAX. Each is fed its own shard.

Start it once per process, with the same arguments but for --index:

    KERAS_BACKEND=jax python scripts/train_distributed.py --coordinator HOST:PORT --count 2 --index 0 ...
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from data_arguments import add_data_arguments, choose_feed, read_training


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coordinator", required=True, metavar="HOST:PORT", help="where process 0 can be reached")
    parser.add_argument("--count", type=int, required=True, help="how many processes there are")
    parser.add_argument("--index", type=int, required=True, help="which of them this is, from 0")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where process 0 saves the weights, *.weights.h5")
    parser.add_argument("--model", choices=("fpn", "c4"), default="fpn", help="default fpn")
    parser.add_argument("--epochs", type=int, default=10, help="default 10")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="default 2e-4")
    parser.add_argument("--workers", type=int, default=2, help="processes that make batches; default 2")
    add_data_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    import jax

    # Before anything else asks JAX for its devices.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(arguments.coordinator, arguments.count, arguments.index)
    import keras

    from detfeed import AnchorGrid, AnchorTargetSequence
    from detfeed.models import RPN

    if keras.backend.backend() != "jax":
        parser.error("set KERAS_BACKEND=jax: Keras trains in several processes on JAX alone")
    # auto_shard_dataset would cut in pieces what is a piece already.
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    keras.utils.set_random_seed(arguments.seed)  # the same weights everywhere
    anchors = AnchorGrid.fpn() if arguments.model == "fpn" else AnchorGrid.c4()
    sequence = AnchorTargetSequence(
        read_training(arguments, parser),
        anchors,
        **choose_feed(arguments, parser),
        shard=(arguments.index, arguments.count),
        drop_last=True,  # JAX puts batches of one shape together
        workers=arguments.workers,
        use_multiprocessing=True,
    )
    rpn = RPN(anchors, weights=None)
    rpn.compile(optimizer=keras.optimizers.Adam(arguments.learning_rate))
    # Keras's own shuffle would be another one in each process, and their canvases no longer the same.
    history = rpn.fit(sequence, epochs=arguments.epochs, shuffle=False, verbose=2 if arguments.index == 0 else 0)
    sequence.close()
    if arguments.out and arguments.index == 0:
        rpn.save_weights(arguments.out)
    weights = hashlib.sha256(b"".join(weight.tobytes() for weight in rpn.get_weights())).hexdigest()
    # The same lines everywhere, or something is amiss.
    print(f"losses {history.history['loss']}, weights {weights[:16]}", flush=True)


if __name__ == "__main__":
    main()
