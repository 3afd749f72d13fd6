"""Writes the small copies of the golden data that a fresh clone tests against.

    python tests/make_golden_samples.py ../shared/golden

Weights, images, labels, logits, integers and losses are copied whole; of block outputs,
gradients and the like a sample of entries, spread evenly, together with the shape and
the largest magnitude (which the gradients' tolerance needs).
"""

import pathlib
import shutil
import sys

import numpy as np

SAMPLE = 96
SPECS = [
    f"{network}_{kind}"
    for network in ("cifar", "imagenet_tiny")
    for kind in ("vanilla", "act", "sact")
]
WHOLE = ("images", "labels", "logits", "flops", "num_units")


def sample(values):
    """Evenly spaced entries of an array, always including the first and the last."""
    flat = np.asarray(values).ravel()
    index = np.unique(np.linspace(0, flat.size - 1, SAMPLE).astype(int))
    return flat[index]


def reduce(path):
    """Entries of an npz file, the large ones sampled."""
    entries = {}
    for key, values in np.load(path).items():
        per_unit = "/unit_" in key and not key.startswith(("updated/", "grad/"))
        if per_unit or key.startswith(("meta/", "predictions")):
            continue
        whole = values.size <= SAMPLE or key.rpartition("/")[2] in WHOLE
        if whole:
            entries[key] = values
        else:
            entries[f"sample/{key}"] = sample(values)
            entries[f"shape/{key}"] = np.array(values.shape)
        if key.startswith("grad/"):
            entries[f"max/{key}"] = np.abs(values).max()
    return entries


def main():
    source = pathlib.Path(sys.argv[1])
    target = pathlib.Path(__file__).parent / "data"
    shutil.copy(source / "act_math.npz", target)
    shutil.copy(source / "flops_vanilla.npz", target)
    for spec in SPECS:
        (target / spec).mkdir(parents=True, exist_ok=True)
        for file in (source / spec).glob("model.ckpt.*"):
            shutil.copy(file, target / spec)
        for name in ("golden.npz", "train_golden.npz"):
            np.savez_compressed(target / spec / name, **reduce(source / spec / name))


if __name__ == "__main__":
    main()
