"""Runs a Python script as a worker in every namespace of a testbed, under torchrun."""

import os
import subprocess
import sys
from collections.abc import Sequence

from bench.suite.scripts.namespaces import Testbed

PORT = 29_500


def run(bed: Testbed, command: Sequence[str]) -> int:
    """Build the network, run the script with its arguments, one node a namespace, and take all down.

    Standard output is the first worker's alone.

    Returns:
        The first exit status that is not 0.
    """
    with bed:
        shared = [f"--nnodes={bed.workers}", "--nproc-per-node=1", f"--master-addr={bed.address}"]
        launch = [sys.executable, "-m", "torch.distributed.run", *shared, f"--master-port={PORT}"]
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        nodes = [
            bed.start(
                rank,
                [*launch, f"--node-rank={rank}", *command],
                threads,
                stdout=None if rank == 0 else subprocess.DEVNULL,
            )
            for rank in range(bed.workers)
        ]
        status = next(filter(None, (node.wait() for node in nodes)), 0)
    for node in nodes:  # which the network has taken with it
        node.wait()
    return status
