r"""What a network reaches and what it costs, on a data set: rows of the paper's tables.

Prints one row for every network and image size: accuracy, recall@5, FLOPs and residual
units per block, mean and standard deviation over images (units of SACT networks over
positions, too). With --output, an evaluation that was interrupted goes on, and the
curves are drawn.

    sact-tf evaluate --model sact.keras --dataset cifar10 --data_dir tfds
    sact-tf evaluate --model sact plain --dataset imagenet --data_dir records \
        --image_size 192 224 288 352 --output evaluation
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from sact_tf import folders, resumable, text_files, visualization
from sact_tf.checkpoints import files
from sact_tf.cli import command_line, networks
from sact_tf.cli.flags import Parser
from sact_tf.data import digit_scenes, sources
from sact_tf.evaluation import comparison, report
from sact_tf.layers.adaptive_blocks import EXECUTIONS
from sact_tf.models.options import has_halting_scores

_SAVE_EVERY = 30.0  # seconds


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--model",
        nargs="+",
        required=True,
        help=f"networks, each {networks.KINDS}",
    )
    add_data_flags(parser)
    parser.add_argument(
        "--image_size",
        nargs="+",
        type=int,
        help="sides of the images in pixels; one row each (default: that of the run, "
        "or 224 for imagenet networks, 32 for cifar networks; 128 for digit scenes)",
    )
    parser.add_argument(
        "--halting_bias",
        type=float,
        help="added to every halting logit of ACT and SACT networks; above zero they "
        "stop sooner",
    )
    parser.add_argument(
        "--execution",
        choices=EXECUTIONS,
        help="where units of ACT, SACT and SSIN networks are computed: times differ, "
        "numbers do not; by default as the network was made",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder for table.md, results.json and the curves; with it, an "
        "interrupted evaluation goes on when it is started again",
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print nothing but the table"
    )


def run(flags: argparse.Namespace) -> dict:
    """Evaluates, and writes the files."""
    if flags.markdown and flags.json:
        raise ValueError("--markdown and --json exclude each other.")
    command_line.require_at_least(flags, image_size=1, num_images=1)
    loaded = {
        name: networks.open_network(path) for name, path in named(flags.model).items()
    }
    take_classes(flags, loaded.values())
    source = open_data(flags)
    if flags.execution:
        loaded = {
            name: found._replace(
                network=comparison.with_execution(found.network, flags.execution)
            )
            for name, found in loaded.items()
        }
    if flags.halting_bias and not any(_halts(f.network) for f in loaded.values()):
        raise ValueError(
            "--halting_bias is for ACT and SACT networks, and there is none among "
            f"these. Received: {', '.join(flags.model)}"
        )
    results = _evaluate_all(loaded, source, flags)
    table = report.markdown_table([row for _, row in results], recall_at_5=True)
    entries = [{**about, **row.as_dict()} for about, row in results]
    if flags.output:
        folders.write_json(flags.output / "results.json", {"rows": entries})
        (flags.output / "table.md").write_text(table + "\n", encoding="utf-8")
        _draw(entries, flags.output)
    return {"rows": entries}


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    entries = result["rows"]
    fields = report.Row.__dataclass_fields__
    rows = [report.Row(**{key: entry[key] for key in fields}) for entry in entries]
    table = report.markdown_table(rows, recall_at_5=True)
    if flags.markdown:
        return table
    text = f"{entries[0]['num_images']} images of {entries[0]['data']}\n\n{table}"
    if flags.output:
        text += f"\n\nThe numbers and the curves are in {flags.output}/."
    return text


def take_classes(flags, loaded):
    """Classes of a folder that nobody names are those that all runs have kept."""
    kept = {tuple(found.classes or ()) for found in loaded}
    if flags.dataset == "folder" and not flags.classes and len(kept) == 1:
        flags.classes = list(kept.pop()) or None


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose a data set."""
    parser.add_argument("--dataset", choices=sources.NAMES, default="digit_scenes")
    parser.add_argument(
        "--data_dir",
        help="where the data are: a TFDS directory or a folder with TFRecords (cifar10,"
        " imagenet), or the folder of images",
    )
    parser.add_argument(
        "--split", help="of the data set (default: test for cifar10, else validation)"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="of the folder of images: folders in the order of the network's classes, "
        "or a text file with one on each line (default: all folders, in alphabetical "
        "order, or those that a run has kept)",
    )
    parser.add_argument("--num_images", type=int, help="only the first so many images")
    parser.add_argument("--batch_size", type=int, default=50)


def open_data(flags: argparse.Namespace) -> sources.Source:
    """The data set that the flags of `add_data_flags` choose."""
    command_line.require_at_least(flags, batch_size=1)
    return sources.open_source(
        flags.dataset,
        flags.data_dir,
        split=flags.split,
        num_images=flags.num_images,
        classes=_classes(flags.classes),
    )


def _classes(names):
    if names and len(names) == 1 and pathlib.Path(names[0]).is_file():
        return text_files.lines(names[0])
    return names


def default_image_size(dataset: str, found: networks.Found) -> int:
    """Side of the images where the user does not say: the one of the network's run."""
    return digit_scenes.SIZE if dataset == "digit_scenes" else found.image_size


def count(
    model,
    batches,
    evaluation: report.Evaluation,
    *,
    total: int | None,
    name: str,
    halting_bias: float | None = None,
    save=None,
) -> report.Row:
    """Counts batches under a progress bar.

    Args:
      model: a `sact_tf.ResNet`.
      batches: pairs of images and labels.
      evaluation: counts so far; the batches begin where it ends.
      total: number of images in all, if known.
      name: of the row.
      halting_bias: see `ResNet.call`.
      save: called with `evaluation.state()` every half minute and in the end, even if
        that is an interruption.
    """
    state, saved = evaluation.state(), time.monotonic()
    bar = tqdm(
        total=total, initial=evaluation.num_images, desc=name, unit="image", leave=False
    )
    try:
        with bar:
            for images, labels in batches:
                evaluation.add(model.introspect(images, halting_bias), labels)
                state = evaluation.state()
                bar.update(len(images))
                if save and time.monotonic() - saved > _SAVE_EVERY:
                    save(state)
                    saved = time.monotonic()
    finally:
        if save:
            save(state)
    return evaluation.row(name)


def named(paths: Sequence[str]) -> dict[str, str]:
    """Paths of networks by names: the last parts, or all where these are equal.

    Raises:
      ValueError: a path is given twice.
    """
    names = {}
    for path in paths:
        name = pathlib.Path(path).resolve().stem
        if name in names:
            name = str(path)
        if name in names:
            raise ValueError(f"{path} is given twice.")
        names[name] = path
    return names


def _evaluate_all(loaded, source, flags):
    """Pairs of (what was evaluated, row)."""
    plan = []
    for name, found in loaded.items():
        model = found.network
        if source.num_classes is not None:
            source.label_offset(_num_classes(model))  # Complains now, not later.
        sizes = flags.image_size or [default_image_size(flags.dataset, found)]
        for size in dict.fromkeys(sizes):
            label = f"{name}, {size} px" if len(sizes) > 1 else name
            plan.append((label, name, model, size))
    fingerprints = {
        name: files.fingerprint(found.network) for name, found in loaded.items()
    }
    progress, store = {}, None
    if flags.output:
        settings = {
            "networks": fingerprints,
            "data": [source.name, flags.data_dir, flags.num_images],
            "images": source.num_images,
            "classes": _classes(flags.classes),
            "image_size": [size for *_, size in plan],
            "halting_bias": flags.halting_bias,
            "batch_size": flags.batch_size,
        }
        store = resumable.claim(flags.output, settings, "evaluation")
        command_line.goes_on()
        progress = store.read("progress.json", {})
    results = []
    for label, name, model, size in plan:
        evaluation = report.Evaluation(len(model.blocks), progress.get(label))
        if progress.get(label):
            tqdm.write(
                f"{label}: going on after {evaluation.num_images} images", sys.stderr
            )

        def save(state, label=label):
            progress[label] = state
            store.write("progress.json", progress)

        batches = source.batches(
            model.family,
            size,
            flags.batch_size,
            start=evaluation.num_images,
            num_classes=_num_classes(model),
        )
        row = count(
            model,
            batches,
            evaluation,
            total=source.num_images,
            name=label,
            halting_bias=flags.halting_bias if _halts(model) else None,
            save=save if store else None,
        )
        about = {
            "network": name,
            "fingerprint": fingerprints[name],
            "data": source.name,
            "image_size": size,
        }
        results.append((about, row))
    return results


def _halts(model):
    return has_halting_scores(model.adaptivity)


def _num_classes(model):
    return model.get_config()["num_classes"]


def _draw(entries, output):
    if entries[0]["accuracy"] is None:
        return
    points = [{**entry, "curve": entry["network"]} for entry in entries]
    figure = visualization.accuracy_against_flops(points)
    visualization.save(figure, output / "accuracy_against_flops.png")
    if len({point["image_size"] for point in points}) > 1:
        figure = visualization.accuracy_against_image_size(points)
        visualization.save(figure, output / "accuracy_against_image_size.png")


COMMAND = command_line.Command(
    "evaluate", __doc__, add_flags, run, show, "print the rows as JSON"
)

if __name__ == "__main__":
    COMMAND.main()
