r"""Latency and throughput of a served model, for several numbers of clients.

    python -m tools.serving_load --server localhost:8500 --model sact \
        --clients 1 2 4 8 --requests 200 photographs/

Every client is a thread with a connection of its own that sends one image after the
other. Percentiles are of what a client waits for an answer. Several servers are asked
in turns, so that what else the machine does weighs on all of them alike, and compared
with the first:

    python -m tools.serving_load --server localhost:8500 --server localhost:9500 \
        --rounds 5 --requests 200 photographs/
"""

import concurrent.futures
import json
import time

import numpy as np
from tqdm import tqdm

from sact_tf.cli import command_line
from sact_tf.data import image_files
from sact_tf.serving.client import Client

_PERCENTILES = (50, 90, 95, 99)


def main() -> None:
    """Parses the flags, sends the requests, prints a table."""
    parser = command_line.parser("serving_load", __doc__)
    parser.add_argument("images", nargs="+", help="files, folders, or glob patterns")
    parser.add_argument(
        "--server",
        required=True,
        action="append",
        metavar="HOST:PORT",
        help="say it several times to compare servers",
    )
    parser.add_argument("--rest", action="store_true", help="REST instead of gRPC")
    parser.add_argument("--model", default="sact", help="its name (default: sact)")
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
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    flags = parser.parse_args()
    if min(flags.requests, *flags.clients) < 1:
        raise ValueError("--requests and --clients must be at least 1")
    if not 1 <= flags.rounds <= flags.requests:
        raise ValueError("--rounds must be at least 1 and not above --requests")
    files = [
        image_files.as_png_or_jpeg(path) for path in image_files.find(flags.images)
    ]
    rows = [row for count in flags.clients for row in _rows(count, files, flags)]
    if flags.json:
        print(json.dumps(rows, indent=1))
        return
    names = ["first", *(f"{percentile} %" for percentile in _PERCENTILES)]
    print(f"| server | clients | {' | '.join(names)} | images/s | ratio |")
    print(f"|---|---|{'---|' * len(names)}---|---|")
    for row in rows:
        times = " | ".join(f"{1000 * row[name]:.1f} ms" for name in names)
        print(
            f"| {row['server']} | {row['clients']} | {times} "
            f"| {row['images_per_second']:.1f} | {row['ratio']:.2f} |"
        )


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
                flags.model,
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


if __name__ == "__main__":
    command_line.run(main)
