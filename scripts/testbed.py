"""A shaped network on one machine, with one process a worker; needs root or user namespaces, and iproute2.

    python scripts/testbed.py run 4 100Mbit scripts/train.py algorithm=sasg world=processes workers=4 name=shaped
    python scripts/testbed.py validate       # holds the models of links against it: results/testbed/
    python scripts/testbed.py forecast       # then holds forecast times to an accuracy against training on it
    python scripts/testbed.py up 4 1Gbit     # leaves the network standing; `ip netns exec bitbudget-0 ...` enters it
    python scripts/testbed.py down

`run` starts torchrun in each of the namespaces, one node each, and takes all down afterwards, whatever happens. Links
are token buckets, alike in both directions; delay is not emulated. Without root, all but `up` and `down` work in a user
namespace, where the system allows these.
"""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from bench.errors import InputError
from bench.suite.scripts.cli import guarded
from bench.suite.scripts.launching import run
from bench.suite.scripts.namespaces import Testbed, enter_user_namespace, refusal
from bench.suite.scripts.units import bandwidth_bps


def _ended(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds: Any = parser.add_subparsers(dest="kind", required=True)
    for kind in ("up", "run"):
        one = kinds.add_parser(kind)
        one.add_argument("workers", type=int)
        one.add_argument("bandwidth", help="of each link, such as 100Mbit")
        if kind == "run":
            one.add_argument("command", nargs=argparse.REMAINDER, help="a Python script and its arguments")
    kinds.add_parser("down")
    for kind in ("validate", "forecast"):
        kinds.add_parser(kind).add_argument("--out", type=Path, default=Path("results") / "testbed")
    args = parser.parse_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _ended)
    if args.kind in ("run", "validate", "forecast"):
        enter_user_namespace()

    def work() -> None:
        if reason := refusal():
            raise InputError(reason)
        if args.kind == "validate":
            from bench.suite.scripts.validation import validate

            print(validate(args.out).markdown())
            return
        if args.kind == "forecast":
            from bench.suite.scripts.forecast import forecast

            print(forecast(args.out).markdown())
            return
        if args.kind == "down":
            return Testbed(1, None).down()
        bed = Testbed(args.workers, bandwidth_bps("bandwidth", args.bandwidth))
        if args.kind == "up":
            bed.up()
            print("\n".join(f"{bed.host(rank)}: 10.77.0.{rank + 1}" for rank in range(args.workers)))
        elif not args.command:
            raise InputError("command: none; a Python script is needed, such as scripts/train.py world=processes")
        elif status := run(bed, args.command):
            sys.exit(status)

    guarded(work)


if __name__ == "__main__":
    main()
