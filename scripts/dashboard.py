"""Shows the results as a page, or on Weights & Biases.

python scripts/dashboard.py                                    # writes results/dashboard.html, which needs no network
python scripts/dashboard.py --live                             # serves the page on this machine and follows runs
python scripts/dashboard.py --wandb ENTITY/PROJECT             # makes a workspace and a report on Weights & Biases
python scripts/dashboard.py --wandb ENTITY/PROJECT sasg_mnist  # makes a workspace with the runs of this experiment only
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.errors import InputError
from bench.extras import need
from bench.runs.whole import write_whole
from bench.suite.scripts.cli import guarded, one_line
from bench.suite.scripts.waiting import say_what_takes_long


def write(results: Path) -> None:
    """Write the page.

    Raises:
        InputError: there are no runs, or none that can be shown.
    """
    from bench.findings.dashboard import Store, page

    data = Store(results).data()
    if not data["experiments"]:
        nothing = f"results: {results} holds no run; scripts/matrix.py experiment=quickstart makes some"
        raise InputError("; ".join(data["problems"]) or nothing)
    write_whole(file := results / "dashboard.html", page(data))
    print(f"{file}: {len(data['experiments'])} experiments")


def serve(results: Path, port: int) -> None:
    """Serve the page until interrupted."""
    from bench.findings.dashboard.live import LiveServer

    with LiveServer(results, port) as server:
        print(f"http://127.0.0.1:{server.server_port} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def publish(place: str, experiments: Sequence[str] = ()) -> None:
    """Make the workspace and the report on W&B; for experiments, a workspace each.

    Raises:
        InputError: `place` is not of the form entity/project, or W&B refuses the request.
    """
    from bench.findings.workspace import report, workspace

    entity, slash, project = place.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise InputError(f"--wandb: {place!r}; ENTITY/PROJECT is needed")
    ours = [workspace(entity, project, name) for name in experiments]
    for made in ours or [workspace(entity, project), report(entity, project)]:
        try:
            made.save()
        except Exception as error:  # W&B raises many kinds: no key, no network, no such project
            raise InputError(f"--wandb: {place}; W&B refuses: {one_line(error)}") from error
        print(made.url)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--live", action="store_true", help="serve the page and follow runs")
    parser.add_argument("--port", type=int, default=8642, help="port of --live")
    told = "make a workspace and a report there instead; or a workspace of each experiment named"
    parser.add_argument("--wandb", nargs="+", metavar=("ENTITY/PROJECT", "EXPERIMENT"), help=told)
    args = parser.parse_args()

    def run() -> None:
        need("dashboard", *(["wandb_workspaces"] if args.wandb else ["plotly"]))
        say_what_takes_long()
        if args.wandb:
            publish(args.wandb[0], args.wandb[1:])
        elif args.live:
            serve(args.results, args.port)
        else:
            write(args.results)

    guarded(run)


if __name__ == "__main__":
    main()
