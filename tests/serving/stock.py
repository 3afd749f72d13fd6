"""An export against the servable that it was made of, in processes without sact_tf."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.serving import export
from tests.serving import pictures

_READER = pathlib.Path(__file__).parent / "stock_reader.py"
_SIZES = ((64, 64), (80, 150), (201, 90))


def run(*arguments, **variables):
    """Runs the reader in a process that cannot see this repository."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= variables
    result = subprocess.run(
        [sys.executable, "-I", _READER, *map(str, arguments)],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def check_bits(servable, folder, tmp_path):
    """All signatures, three image sizes, batches of 1 and 7: the same bits."""
    cases, answers = {}, {}
    for size in _SIZES:
        for batch in (1, 7):
            images = np.stack([pictures.image(*size, seed) for seed in range(batch)])
            files = np.array([pictures.jpeg(image) for image in images], object)
            for signature in servable.signatures:
                if "limited" in signature and size != _SIZES[0]:
                    continue  # The same graphs, with another number in it.
                inputs = images if signature == "tensors" else files
                key = f"{signature}-{size[0]}-{batch}"
                cases[key] = inputs
                outputs = servable.signatures[signature](tf.constant(inputs))
                answers |= {f"{key}/{k}": v.numpy() for k, v in outputs.items()}
    np.savez(tmp_path / "cases.npz", **cases)
    run(folder, tmp_path / "cases.npz", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=True) as reloaded:
        assert set(reloaded) == set(answers)
        assert {key.partition("/")[0] for key in reloaded} == set(cases)
        assert len(cases) >= 2 * 3 * len(_SIZES)
        for key, value in answers.items():
            np.testing.assert_array_equal(reloaded[key], value, key)


def check_c_api(servable, folder, tmp_path):
    """Ponder cost and FLOPs of an image, through TF_LoadSessionFromSavedModel."""
    image = pictures.image(70, 90)
    np.save(tmp_path / "image.npy", image[np.newaxis])
    library = pathlib.Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"
    if not library.exists():
        pytest.skip(f"this TensorFlow has no C library {library.name}")
    # Which tensors the outputs are is in the SignatureDef, a protocol buffer.
    outputs = export.meta_graph(folder).signature_def["tensors"].outputs
    names = json.dumps([outputs[key].name for key in ("ponder_cost", "flops")])
    arguments = ("--c_library", library, folder, tmp_path / "image.npy")
    answer = servable.tensors(image[np.newaxis])
    assert json.loads(run(*arguments, OUTPUTS=names)) == [
        float(answer["ponder_cost"][0]),
        int(answer["flops"][0]),
    ]
