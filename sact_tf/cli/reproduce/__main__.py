"""The project's own evidence on real data: trains, measures, and writes the pages.

Questions, networks, schedules and seeds are those of docs/protocol.md. Every run is a
command in a process of its own; what is known of it is a small JSON file under
--results, from which tables and pictures are made. A run whose file is there is not run
again, and the same command goes on where it was stopped.

    sact-tf reproduce --dry_run
    sact-tf reproduce cifar10 --data ../shared/data --output runs/reproduce
    sact-tf reproduce --pages        (from the files that there are; trains nothing)
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser
from sact_tf.cli.reproduce import cifar10, saliency
from sact_tf.cli.reproduce.pages import Page
from sact_tf.cli.reproduce.runs import Runs

#: Questions of the protocol, and what their pages are called.
QUESTIONS = {
    "cifar10": (cifar10, "CIFAR-10: SACT, ACT and plain networks"),
    "saliency": (saliency, "Ponder cost maps and where people look"),
}


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "questions",
        nargs="*",
        metavar="QUESTION",
        help=f"{', '.join(QUESTIONS)} (default: all of them)",
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        default=pathlib.Path("../shared/data"),
        help="folder that holds tfds/cifar10 and scene_saliency (../shared/data)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/reproduce"),
        help="where the runs are (runs/reproduce)",
    )
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        default=pathlib.Path("docs/results"),
        help="where pages, and the files they are made from, are (docs/results)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--dry_run", action="store_true", help="say how long it takes, and stop"
    )
    what.add_argument(
        "--pages", action="store_true", help="write the pages, train nothing"
    )


def run(flags: argparse.Namespace) -> dict:
    """Trains what is missing, and writes the pages."""
    names = flags.questions or list(QUESTIONS)
    for name in names:
        if name not in QUESTIONS:
            raise ValueError(
                f"QUESTION must be one of {', '.join(QUESTIONS)}. Received: {name}"
            )
    hours = {name: QUESTIONS[name][0].HOURS for name in names}
    if flags.dry_run:
        return {"hours": hours, "pages": []}
    if not flags.pages:
        if not flags.data.is_dir():
            raise ValueError(f"--data must be a folder. Received: {flags.data}")
        print(_duration(hours), flush=True)
        command_line.goes_on()
    pages = []
    for name in names:
        module, title = QUESTIONS[name]
        runs = Runs(name, flags.output, flags.results / "data")
        try:
            if not flags.pages:
                module.run(runs, flags.data)
        finally:
            if runs.all():
                pages.append(_write(module, title, name, runs, flags))
    return {"hours": hours, "pages": pages}


def _write(module, title, name, runs, flags):
    path = flags.results / f"{name}.md"
    page, known = Page(path, title), runs.all()
    page.text(
        f"Made by `sact-tf reproduce {name}` from the files in `data/{name}`; what is "
        "compared, and how, was fixed beforehand in [protocol.md](../protocol.md)."
    )
    module.page(known, page)
    page.runs(known)
    page.write()
    return str(path)


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    return "\n".join([_duration(result["hours"]), *result["pages"]])


def _duration(hours):
    lines = [
        f"{name}: about {slow:g} hours on two cores, {fast:g} on a GPU"
        for name, (slow, fast) in hours.items()
    ]
    return "\n".join(lines)


COMMAND = command_line.Command("reproduce", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
