"""Question 1 of docs/protocol.md: SACT, ACT and plain networks of equal FLOPs."""

import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

import sact_tf
from sact_tf import folders, visualization
from sact_tf.cli.reproduce.pages import Page
from sact_tf.cli.reproduce.runs import Runs, packed, unpacked
from sact_tf.data import cifar10, preprocessing
from sact_tf.evaluation import baselines, claims, report
from sact_tf.models.resnet import ResNet

UNITS = (5, 5, 5)
TAUS = (0.03, 0.1, 0.2)
#: Seeds of the second stage; the middle tau has two.
SEEDS = {0.03: (1,), 0.1: (1, 2), 0.2: (1,)}
FIRST = {"steps": 7800, "rate": 0.1, "evaluate_every": 1300}
SECOND = {"steps": 3900, "rate": 0.01, "evaluate_every": 1300}
#: Hours on two cores, and on a GPU.
HOURS = (24, 1)
_ADAPTIVE = ("sact", "act")


def run(runs: Runs, data: pathlib.Path, steps_per_call: int = 130) -> None:
    """Trains what has not been trained, one after the other."""
    tfds = data / "tfds"

    def measure(folder):
        return {
            **folders.read_json(folder / "results.json"),
            **_answers(folder / "network.keras", tfds),
        }

    def train(name, stage, **flags):
        words = {
            "data_dir": tfds,
            "output": "{folder}",
            "steps_per_call": steps_per_call,
            **stage,
            **flags,
        }
        command = ["train-cifar"]
        for key, value in words.items():
            values = value if isinstance(value, tuple) else (value,)
            command += [f"--{key}", *map(str, values)]
        return runs.run(name, command, measure)

    train("first", FIRST, units=UNITS, adaptivity="none", seed=1)
    second = {**SECOND, "initialize_from": runs.folder / "first" / "network.keras"}
    for seed in (1, 2):
        train(
            plain_name(UNITS, seed), second, units=UNITS, adaptivity="none", seed=seed
        )
    for adaptivity, tau, seed in _trained():
        network = {"units": UNITS, "adaptivity": adaptivity, "tau": tau, "seed": seed}
        known = train(adaptive_name(adaptivity, tau, seed), second, **network)
        units = matched_units(known)
        name = plain_name(units, seed)
        train(name, second, units=units, adaptivity="none", seed=seed)


def _trained() -> Iterator[tuple[str, float, int]]:
    """Adaptive networks, what matters most first."""
    for tau in (0.1, 0.03, 0.2):
        for seed in SEEDS[tau]:
            for adaptivity in _ADAPTIVE:
                yield adaptivity, tau, seed


def adaptive_name(adaptivity: str, tau: float, seed: int) -> str:
    """Of a run."""
    return f"{adaptivity}_tau_{tau:g}_seed_{seed}"


def plain_name(units: tuple[int, ...], seed: int) -> str:
    """Of a run."""
    return f"plain_{'_'.join(map(str, units))}_seed_{seed}"


def matched_units(known: dict) -> tuple[int, ...]:
    """Of the plain network whose FLOPs are nearest to those of an adaptive one."""
    fields = {key: known[key] for key in report.Row.__dataclass_fields__}
    row = report.Row(**{**fields, "units": tuple(fields["units"])})
    plain = ResNet("cifar", UNITS, "none", cifar10.NUM_CLASSES)
    return baselines.nearest_flops(plain, tf.zeros([1, 32, 32, 3]), row)


def _answers(network, data) -> dict:
    """Which test images a network has right."""
    model = sact_tf.load_model(network, compile=False)
    images, labels = cifar10.load(data, "test")
    right = []
    for first in range(0, len(images), 500):
        batch = preprocessing.normalize(images[first : first + 500], "cifar")
        logits = model(batch, training=False).numpy()
        right.append(logits.argmax(1) == labels[first : first + 500])
    return {"right": packed(np.concatenate(right))}


def page(known: dict[str, dict], page: Page) -> None:
    """Tables, a picture, and what they say; of the runs that there are."""
    full = known.get(plain_name(UNITS, 1))
    if full is None:
        page.text("Not all of the runs that every other is compared with are done.")
        return
    rows = []
    for adaptivity, tau, seed in _trained():
        one = known.get(adaptive_name(adaptivity, tau, seed))
        units = one and matched_units(one)
        other = one and known.get(plain_name(units, seed))
        if one:
            rows.append((adaptivity, tau, seed, one, units, other))
    page.text(
        "CIFAR-10 in a JPEG re-encoding, which costs accuracy by itself. Units "
        f"{_list(UNITS)}; {FIRST['steps']:,} updates of a plain network, then "
        f"{SECOND['steps']:,} of each network from its weights. All 10,000 test images."
    )
    table = []
    for name in ("first", plain_name(UNITS, 1), plain_name(UNITS, 2)):
        if name in known:
            label = "plain, first stage" if name == "first" else "plain"
            table.append(_row(label, name[-1] if label == "plain" else 1, known[name]))
    for adaptivity, tau, seed, one, units, other in rows:
        table.append(_row(f"{adaptivity.upper()}, tau {tau:g}", seed, one))
        if other:
            table.append(_row(f"plain, {_list(units)} (matched)", seed, other))
    page.table(
        ("network", "seed", "accuracy", "FLOPs per image", "units per block"), table
    )
    _draw(known, rows, page)
    _claims(rows, page)


def _claims(rows, page):
    page.heading("SACT and ACT at equal FLOPs (claim a)")
    table = []
    for tau in TAUS:
        found, ours = [], _of("sact", tau, rows)
        if not ours:
            continue
        for _, _, seed, one, *_ in ours:
            others = [
                (row[3]["flops"], _right(row[3])) for row in rows if _act(row, seed)
            ]
            try:
                theirs = claims.at_flops(one["flops"], others)
            except ValueError:
                continue
            found.append(_difference(_right(one), theirs))
        if not found:
            table.append((f"{tau:g}", "no ACT network on both sides", ""))
            continue
        difference = claims.over_seeds(found)
        table.append((f"{tau:g}", str(difference), difference.verdict))
    page.table(("tau of SACT", "SACT less ACT, points", "SACT is better"), table)
    page.heading("SACT and the plain network of the same FLOPs (claim b)")
    table = []
    for adaptivity in _ADAPTIVE:
        for tau in TAUS:
            pairs = [row for row in _of(adaptivity, tau, rows) if row[5]]
            if not pairs:
                continue
            difference = claims.over_seeds(
                [claims.paired(_right(row[3]), _right(row[5])) for row in pairs]
            )
            ratio = np.mean([row[5]["flops"] / row[3]["flops"] for row in pairs])
            table.append(
                (
                    f"{adaptivity.upper()}, tau {tau:g}",
                    len(pairs),
                    f"{ratio:.3f}",
                    str(difference),
                    difference.verdict,
                )
            )
    page.table(
        (
            "network",
            "seeds",
            "FLOPs of its baseline, relative",
            "network less baseline, points",
            "better",
        ),
        table,
    )


def _act(row, seed):
    """ACT networks to interpolate between: of the same seed, or the only one."""
    adaptivity, tau, of_seed = row[:3]
    return adaptivity == "act" and (of_seed == seed or len(SEEDS[tau]) == 1)


def _difference(ours, theirs):
    each = ours.astype(float) - theirs
    return claims.Difference(float(each.mean()), float(each.std() / len(each) ** 0.5))


def _of(adaptivity, tau, rows):
    return [row for row in rows if row[:2] == (adaptivity, tau)]


def _right(known):
    return unpacked(known["right"], known["num_images"])


def _row(name, seed, known):
    means = zip(known["units"], known["units_std"], strict=True)
    return (
        name,
        seed,
        f"{100 * known['accuracy']:.2f} %",
        f"{known['flops']:.4g}"
        + (f" ± {known['flops_std']:.2g}" * (known["flops_std"] > 0)),
        ", ".join(f"{mean:.2f}" if std else f"{mean:g}" for mean, std in means),
    )


def _draw(known, rows, page):
    """Seeds of one network are one point."""
    points = {}
    for adaptivity, tau, _, one, units, other in rows:
        points.setdefault((adaptivity.upper(), tau), []).append(one)
        if other and units != UNITS:
            points.setdefault(("plain", units), []).append(other)
    for seed in (1, 2):
        if one := known.get(plain_name(UNITS, seed)):
            points.setdefault(("plain", UNITS), []).append(one)
    drawn = [
        {
            "name": curve,
            "accuracy": float(np.mean([one["accuracy"] for one in seeds])),
            "flops": float(np.mean([one["flops"] for one in seeds])),
            "flops_std": float(np.mean([one["flops_std"] for one in seeds])),
        }
        for (curve, _), seeds in points.items()
    ]
    page.picture(
        "accuracy_against_flops",
        visualization.accuracy_against_flops(drawn),
        "Accuracy against FLOPs; mean over seeds",
    )


def _list(units):
    return ", ".join(map(str, units))
