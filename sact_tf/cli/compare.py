r"""Which way saves most on your data: networks side by side.

Any number of networks, plain and adaptive, on one data set and one machine: accuracy,
FLOPs, parameters, the time of a batch on the data's own images, and memory. Adaptive
networks are timed both computing everything ("dense") and sparsely ("auto"). What is
timed takes turns, in one process; of every batch the fastest turn counts. With
--output, the comparison goes on where it was interrupted, and is drawn.

    sact-tf compare --model plain.keras sact.keras ssb.keras \
        --dataset cifar10 --data_dir tfds --output comparison
    sact-tf compare --model runs/plain runs/ssin --dataset imagenet \
        --data_dir records --published ssbnet --memory
"""

import argparse
import pathlib

import tensorflow as tf

from sact_tf import folders, resumable, visualization
from sact_tf.checkpoints import files
from sact_tf.cli import command_line, evaluate, networks
from sact_tf.cli.flags import Parser
from sact_tf.evaluation import comparison, published, report
from sact_tf.layers.adaptive_blocks import EXECUTIONS


def run(flags: argparse.Namespace) -> dict:
    """Compares, and writes the files."""
    command_line.require_at_least(
        flags, turns=1, timed_images=1, image_size=1, timed_batches=1
    )
    paths = evaluate.named(flags.model)
    found = {name: networks.open_network(path) for name, path in paths.items()}
    models = {name: one.network for name, one in found.items()}
    evaluate.take_classes(flags, found.values())
    source = evaluate.open_data(flags)
    most = max(flags.timed_batches)
    if source.num_images is not None and source.num_images < most:
        raise ValueError(
            f"{source.name} has {source.num_images} images; --timed_batches asks for "
            f"{most} at once"
        )
    if flags.reference is not None and flags.reference not in models:
        raise ValueError(
            f"--reference must be one of {', '.join(models)}. Received: "
            f"{flags.reference}"
        )
    sizes = _image_sizes(flags, found)
    store, done = _store(flags, source, models)
    rows = {}
    for name, model in models.items():
        rows[name] = _counted(flags, source, name, model, sizes, done, store)
    if "times" not in done:
        done["times"] = _times(flags, source, models, sizes)
        _write(store, done)
    memory = done.setdefault("memory", {})
    if flags.memory:
        for name, model in models.items():
            if name not in memory:
                memory[name] = _memory(flags, source, paths[name], model, sizes)
                _write(store, done)
    reference = flags.reference or next(iter(models))
    entries = [
        {
            **rows[name].as_dict(),
            "name": name,
            "path": str(paths[name]),
            "image_size": sizes[model.family],
            "parameters": model.count_params(),
            "flops_left": rows[name].flops / rows[reference].flops,
            "milliseconds": [t for t in done["times"] if t["network"] == name],
            "peak_memory": memory.get(name),
        }
        for name, model in models.items()
    ]
    beside = published.TABLES.get(flags.published, [])
    result = {
        "data": source.name,
        "reference": reference,
        "device": _device(),
        "networks": entries,
        "published": [row._asdict() for row in beside],
    }
    if flags.output:
        folders.write_json(flags.output / "comparison.json", result)
        table = _table(result, flags)
        (flags.output / "table.md").write_text(table + "\n", encoding="utf-8")
        _draw(entries, flags)
    return result


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    text = (
        f"{result['networks'][0]['num_images']} images of {result['data']}, on a "
        f"{result['device']}; FLOPs and times beside {result['reference']}\n\n"
        f"{_table(result, flags)}"
    )
    if flags.output:
        text += f"\n\nThe numbers and the pictures are in {flags.output}/."
    return text


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--model",
        nargs="+",
        required=True,
        help=f"networks, each {networks.KINDS}",
    )
    evaluate.add_data_flags(parser)
    parser.add_argument(
        "--image_size", type=int, help="side of the images (default: see evaluate)"
    )
    parser.add_argument(
        "--reference", help="network that is 1.00 (default: the first one)"
    )
    parser.add_argument(
        "--executions",
        nargs="+",
        choices=EXECUTIONS,
        default=["dense", "auto"],
        help="of adaptive networks, to be timed (dense and auto)",
    )
    parser.add_argument(
        "--timed_batches",
        nargs="+",
        type=int,
        default=[1, 8],
        help="images at once, for the clock (1 and 8)",
    )
    parser.add_argument(
        "--timed_images", type=int, default=32, help="images to be timed (32)"
    )
    parser.add_argument(
        "--turns", type=int, default=5, help="of each network on each batch (5)"
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="measure what a process of its own takes for each network, too",
    )
    parser.add_argument(
        "--published",
        choices=sorted(published.TABLES),
        help="rows of a paper to put beside",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder for table.md, comparison.json and the pictures",
    )


def _image_sizes(flags, found):
    """Side of the images by family: networks of one family see the same images."""
    sizes = {}
    for name, one in found.items():
        size = flags.image_size or evaluate.default_image_size(flags.dataset, one)
        if sizes.setdefault(one.network.family, size) != size:
            raise ValueError(
                f"{name} was made for images of {size} pixels, another network of its "
                f"family for {sizes[one.network.family]}. Say --image_size"
            )
    return sizes


def _device():
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


def _store(flags, source, models):
    """Where the comparison is kept, and what of it is there already."""
    if not flags.output:
        return None, {}
    settings = {
        "networks": {name: files.fingerprint(model) for name, model in models.items()},
        "data": [source.name, flags.data_dir, flags.num_images],
        "images": source.num_images,
        "classes": flags.classes,
        "image_size": flags.image_size,
        "batch_size": flags.batch_size,
        "clock": [
            *(flags.executions, flags.timed_batches, flags.timed_images, flags.turns)
        ],
        "device": _device(),
    }
    store = resumable.claim(flags.output, settings, "comparison")
    command_line.goes_on()
    return store, store.read("progress.json", {})


def _write(store, done):
    if store:
        store.write("progress.json", done)


def _counted(flags, source, name, model, sizes, done, store):
    """Accuracy and costs over the whole data set."""
    counts = done.setdefault("counts", {})
    evaluation = report.Evaluation(len(model.blocks), counts.get(name))

    def save(state):
        counts[name] = state
        _write(store, done)

    batches = _batches(
        source, model, sizes, flags.batch_size, start=evaluation.num_images
    )
    return evaluate.count(
        model,
        batches,
        evaluation,
        total=source.num_images,
        name=name,
        save=save if store else None,
    )


def _batches(source, model, sizes, batch_size, start=0):
    return source.batches(
        model.family,
        sizes[model.family],
        batch_size,
        start=start,
        num_classes=model.get_config()["num_classes"],
    )


def _first_batches(flags, source, model, sizes, batch_size):
    """Whole batches of the first images, as many as are to be timed."""
    count = max(1, flags.timed_images // batch_size)
    batches = _batches(source, model, sizes, batch_size).take(count)
    return [images for images, _ in batches if len(images) == batch_size]


def _times(flags, source, models, sizes):
    """Milliseconds of each network in each of its executions, by batch size."""
    candidates = {
        (name, execution): comparison.with_execution(model, execution)
        for name, model in models.items()
        for execution in comparison.executions(model, flags.executions)
    }
    results = []
    for batch_size in dict.fromkeys(flags.timed_batches):
        given = {
            family: _first_batches(flags, source, model, sizes, batch_size)
            for family, model in {m.family: m for m in models.values()}.items()
        }
        batches = {key: given[model.family] for key, model in candidates.items()}
        # Traced anew for every size: "auto" decides by it.
        runs = {
            key: comparison.inference(model, batches[key][0])
            for key, model in candidates.items()
        }
        title = f"clock, batches of {batch_size}"
        times = comparison.milliseconds(runs, batches, flags.turns, title)
        results += [
            {
                "network": name,
                "execution": execution,
                "batch_size": batch_size,
                "milliseconds": value,
            }
            for (name, execution), value in times.items()
        ]
    return results


def _memory(flags, source, path, model, sizes):
    """Bytes of a process, the network in the last of its executions."""
    execution = comparison.executions(model, flags.executions)[-1]
    most = max(flags.timed_batches)
    images = _first_batches(flags, source, model, sizes, most)[0].numpy()
    return comparison.peak_memory(networks.load, path, execution, images)


def _table(result, flags):
    entries = result["networks"]
    keys = {
        (time["execution"], time["batch_size"]): None
        for entry in entries
        for time in entry["milliseconds"]
    }
    head = ["network", "accuracy", "FLOPs", "left", "parameters"]
    head += [f"ms, {size}, {execution}" for execution, size in keys]
    if flags.memory:
        head.append("memory, MB")
    lines = [head]
    for entry in entries:
        times = {
            (time["execution"], time["batch_size"]): f"{time['milliseconds']:.1f}"
            for time in entry["milliseconds"]
        }
        line = [
            entry["name"],
            _percent(entry["accuracy"]),
            f"{entry['flops']:.4g} ± {entry['flops_std']:.2g}",
            f"{entry['flops_left']:.2f}",
            f"{entry['parameters']:,}",
            *(times.get(key, "") for key in keys),
        ]
        if flags.memory:
            line.append(f"{entry['peak_memory'] / 1e6:.0f}")
        lines.append(line)
    for row in result["published"]:
        line = [f"{row['name']} (published)", _percent(row["accuracy"])]
        line.append(f"{row['flops']:.4g}")
        lines.append(line + [""] * (len(head) - len(line)))
    return report.pipe_table(lines)


def _percent(share):
    return "" if share is None else f"{100 * share:.2f} %"


def _draw(entries, flags):
    if entries[0]["accuracy"] is None:
        return
    figure = visualization.accuracy_against_flops(entries)
    visualization.save(figure, flags.output / "accuracy_against_flops.png")
    size = min(flags.timed_batches)
    points = [
        {
            "curve": entry["name"],
            "name": entry["name"],
            "label": time["execution"] if len(entry["milliseconds"]) > 1 else "",
            "accuracy": entry["accuracy"],
            "milliseconds": time["milliseconds"],
        }
        for entry in entries
        for time in entry["milliseconds"]
        if time["batch_size"] == size
    ]
    figure = visualization.accuracy_against_time(points, size)
    visualization.save(figure, flags.output / "accuracy_against_time.png")


COMMAND = command_line.Command("compare", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
