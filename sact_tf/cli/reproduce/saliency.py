"""Question 5 of docs/protocol.md: do ponder cost maps show where people look?"""

import pathlib

from matplotlib.figure import Figure

from sact_tf import folders, visualization
from sact_tf.cli.reproduce.pages import Page
from sact_tf.cli.reproduce.runs import Runs
from sact_tf.evaluation.claims import Difference

#: Boxes that photographs are scaled to, width by height; the network was trained on
#: images of 32 x 32.
BOXES = ("64x48", "128x96", "256x192", "512x384")
NETWORK = "trained/cifar10_sact_0.01/model.ckpt"
HOURS = (0.3, 0.3)
_SCORES = "scores"


def run(runs: Runs, data: pathlib.Path) -> None:
    """Scores the maps at every scale, and those of the network with random weights."""
    prefix = data.parent / NETWORK
    network = runs.folder / "network" / "cifar10.keras"
    if not network.exists():
        network.parent.mkdir(parents=True, exist_ok=True)
        command = ["import-checkpoint", "--checkpoint", str(prefix)]
        runs.call("import", [*command, "--output", str(network)])
    names = [f"at_{box}={network}" for box in BOXES]
    command = ["evaluate-saliency", "--data_dir", str(data / "scene_saliency")]
    command += ["--output", "{folder}", "--random_weights", "1"]
    command += ["--model", *names, "--box", *BOXES]
    runs.run(_SCORES, command, _measure)


def _measure(folder):
    return {"rows": folders.read_json(folder / "results.json")["rows"]}


def page(known: dict[str, dict], page: Page) -> None:
    """The rows, by scale."""
    page.text(
        "The SACT network of `shared/trained/cifar10_sact_0.01` (units 5, 5, 5; tau "
        "0.01; CIFAR-10 and nothing else), on 120 photographs with the fixations of "
        "observers, of which half are for tuning the blur s and the weight gamma of "
        "the centre map. AUC-Judd of the other half, in per cent; ± is a standard "
        "error. Detectors have not been tried."
    )
    rows, table, gains = known[_SCORES]["rows"], [], []
    for row in rows:
        gain = Difference(row["gain"], row["gain_error"])
        smoothed = row["sigma"] is not None
        table.append(
            (
                row["name"].replace("at_", "").replace("-random-weights", ", random"),
                f"{row['sigma']:g}" if smoothed else "",
                f"{row['gamma']:g}" if smoothed else "",
                f"{100 * row['scores']['auc_judd']:.2f} "
                f"± {100 * row['auc_judd_error']:.2f}",
                str(gain) if smoothed else "",
                f"{row['scores']['nss']:.3f}",
            )
        )
        if smoothed and row["name"].endswith("tuned") and "random" not in row["name"]:
            gains.append((row["name"].replace("at_", ""), gain))
    names = ("saliency map", "s", "gamma", "AUC-Judd", "over centre", "NSS")
    page.table(names, table)
    page.picture(
        "auc_judd", _drawn(rows), "AUC-Judd by the width that photographs are scaled to"
    )
    page.heading("The claim: maps tell more than where the centre is")
    page.table(
        ("network", "over centre, points", "verdict"),
        [(name, str(gain), gain.verdict) for name, gain in gains],
    )


def _drawn(rows) -> Figure:
    """AUC-Judd by scale, trained and random, with and without the centre map."""
    figure = visualization.new_figure(6.0, 4.2)
    axes = figure.subplots()
    widths = [int(box.partition("x")[0]) for box in BOXES]
    by_name = {row["name"]: row for row in rows}
    for label, ending in (
        ("ponder cost and centre", ", tuned"),
        ("ponder cost alone", ", no centre map"),
        ("the same, random weights", "-random-weights, no centre map"),
    ):
        found = [by_name[f"at_{box}{ending}"] for box in BOXES]
        axes.errorbar(
            widths,
            [100 * row["scores"]["auc_judd"] for row in found],
            yerr=[100 * row["auc_judd_error"] for row in found],
            marker="o",
            capsize=3,
            label=label,
        )
    centre = 100 * by_name["centre map"]["scores"]["auc_judd"]
    axes.axhline(centre, color="black", linestyle="--", label="centre map")
    axes.axhline(50, color="grey", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xticks(widths)
    axes.set_xlabel("width of the photographs, pixels")
    axes.set_ylabel("AUC-Judd, % (bars: one standard error)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
