r"""Latency and throughput of a served model, for several numbers of clients.

    sact-tf serving-load --server localhost:8500 --name sact \
        --clients 1 2 4 8 --requests 200 photographs/

Every client is a thread with a connection of its own that sends one image after the
other. Percentiles are of what a client waits for an answer. Several servers are asked
in turns, so that what else the machine does weighs on all of them alike, and compared
with the first:

    sact-tf serving-load --server localhost:8500 --server localhost:9500 \
        --rounds 5 --requests 200 photographs/
"""

import argparse
import concurrent.futures
import time

import numpy as np
from tqdm import tqdm

from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser
from sact_tf.data import image_files
from sact_tf.evaluation import report
from sact_tf.serving.client import Client

_PERCENTILES = (50, 90, 95, 99)


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument("images", nargs="+", help="files, folders, or glob patterns")
    parser.add_argument(
        "--server",
        required=True,
        action="append",
        metavar="HOST:PORT",
        help="say it several times to compare servers",
    )
    parser.add_argument("--rest", action="store_true", help="REST instead of gRPC")
    parser.add_argument(
        "--name", default="sact", help="of the model on the server (default: sact)"
    )
    parser.add_argument("--version", type=int, help="default: the latest")
    parser.add_argument(
        "--clients",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8],
        help="at the same time (default: 1 2 4 8)",
    )
    parser.add_argument(
        "--requests",
        type=int,
        default=200,
        help="in all, for each server and number of clients (default: 200)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        help="turns that the requests are divided into (default: 1)",
    )
    parser.add_argument("--halting_bias", type=float, default=0.0)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds")
    parser.renamed(model="name")


def run(flags: argparse.Namespace) -> list[dict]:
    """Sends the requests."""
    command_line.require_at_least(flags, requests=1, clients=1)
    if not 1 <= flags.rounds <= flags.requests:
        raise ValueError("--rounds must be at least 1 and not above --requests")
    files = [
        image_files.as_png_or_jpeg(path) for path in image_files.find(flags.images)
    ]
    return [row for count in flags.clients for row in _rows(count, files, flags)]


def show(result: list[dict], flags: argparse.Namespace) -> str:
    """The result for people."""
    names = ["first", *(f"{percentile} %" for percentile in _PERCENTILES)]
    table = [["server", "clients", *names, "images/s", "ratio"]]
    for row in result:
        times = [f"{1000 * row[name]:.1f} ms" for name in names]
        speed = [f"{row['images_per_second']:.1f}", f"{row['ratio']:.2f}"]
        table.append([row["server"], str(row["clients"]), *times, *speed])
    return report.pipe_table(table)


def _rows(count, files, flags):
    """One row for each server."""
    runs = {server: [] for server in flags.server}
    for turn in range(flags.rounds):
        start, end = (
            flags.requests * number // flags.rounds for number in (turn, turn + 1)
        )
        for server in runs:
            runs[server].append(_run(server, count, range(start, end), files, flags))
    rows = []
    for server, turns in runs.items():
        waits = np.concatenate([waits for waits, _ in turns])
        speed = len(waits) / sum(elapsed for _, elapsed in turns)
        rows.append(
            {
                "server": server,
                "clients": count,
                "requests": len(waits),
                "first": waits[0],
                **{
                    f"{percentile} %": float(np.percentile(waits, percentile))
                    for percentile in _PERCENTILES
                },
                "images_per_second": speed,
                "ratio": speed / rows[0]["images_per_second"] if rows else 1.0,
            }
        )
    return rows


def _run(server, count, requests, files, flags):
    """Seconds that clients waited for each answer, and seconds in all."""
    numbers = iter(requests)  # Shared: next() is one step for all threads.
    with tqdm(
        total=len(requests), desc=f"{server}, {count}", unit="request", leave=False
    ) as progress:

        def work(_):
            seconds = []
            with Client(
                server,
                flags.name,
                version=flags.version,
                protocol="rest" if flags.rest else "grpc",
                timeout=flags.timeout,
            ) as client:
                client.versions()  # Connects.
                for number in numbers:
                    inputs = {
                        "images": [files[number % len(files)]],
                        "halting_bias": flags.halting_bias,
                    }
                    began = time.perf_counter()
                    client.predict("serving_default", inputs)
                    seconds.append(time.perf_counter() - began)
                    progress.update()
            return seconds

        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            seconds = list(pool.map(work, range(count)))
        elapsed = time.perf_counter() - began
    # First the first answer of a client, for the column of that name.
    return np.concatenate([np.array(own) for own in seconds if own]), elapsed


COMMAND = command_line.Command("serving_load", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
