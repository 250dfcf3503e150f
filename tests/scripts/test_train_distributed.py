"""Two processes on this machine train together, with Keras on JAX."""

import os
import socket
import subprocess
import sys

COMMAND = "import small_resnet50, train_distributed; small_resnet50.use_small_resnet50(); train_distributed.main()"


def test_processes_fed_their_shards_end_with_the_same_losses_and_weights(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    arguments = ["--coordinator", f"localhost:{port}", "--count", "2", "--model", "c4", "--shapes", "12"]
    arguments += ["--short-side", "64", "--epochs", "1", "--workers", "1"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments, "--index", str(index), "--shapes-dir", tmp_path / str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=1800)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = ([line for line in output.splitlines() if line.startswith("losses")] for output in outputs)
    assert len(first) == 1 and first == second, outputs
