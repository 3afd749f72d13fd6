import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.cli.benchmark import (
    __main__ as benchmark,
)
from sact_tf.cli.benchmark import (
    calibrate,
    device,
    forced,
    masks,
    settings,
    timing,
    units,
)
from sact_tf.geometry import Packed
from tests.tools.calling import call


@pytest.fixture
def measures(monkeypatch, capsys):
    return lambda *arguments: call(monkeypatch, capsys, benchmark, *arguments)


def test_units_under_masks(measures, monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "SHARES", (1.0, 0.5, 0.0))
    flags = ["--block", 4, "--image-size", "224", "--turns", 1, "--tiles", "2"]
    code, out, _ = measures("units", *flags, "--json", "--plot", tmp_path / "plot.png")
    assert code == 0 and (tmp_path / "plot.png").stat().st_size > 1000
    content = json.loads(out)
    names = {"plain", "masked", "positions", "tiles 2", "auto"}
    for note, left in (("100% active", 1.0), ("0% active", 0.0)):
        lines = [line for line in content["results"] if line["note"] == note]
        assert {line["what"] for line in lines} == names
        for line in lines:
            assert line["milliseconds"] > 0
            assert (line["share"] > 0) == (line["flops_left"] > 0)
            whole = line["what"] == "plain"
            assert line["flops_left"] == (1.0 if whole else left)
    assert content["copy_gigabytes_per_second"] > 0.1
    assert content["device"].startswith("CPU, float32, TensorFlow ")
    assert content["matmul_gflops"] > 1 and content["peak_memory_gib"] > 0.1


def test_precision_batches_and_xla(measures, monkeypatch):
    monkeypatch.setattr(settings, "SHARES", (0.5,))
    monkeypatch.setitem(settings.SIZES, "224", (64, 64))
    before = tf_keras.mixed_precision.global_policy().name
    flags = ["--block", 4, "--image-size", "224", "--turns", 1, "--tiles", ""]
    flags += ["--dtype", "bfloat16", "--batch-size", 1, 2, "--jit", "--json"]
    seen = []

    def traced(run, jit=False, trace=timing.traced):
        seen.append(jit)
        return trace(run, jit)

    monkeypatch.setattr(units, "traced", traced)
    code, out, err = measures("units", *flags)
    assert code == 0, err
    content = json.loads(out)
    assert content["device"].startswith("CPU, bfloat16, ")
    notes = {line["note"] for line in content["results"]}
    assert notes == {"1 images, 50% active", "2 images, 50% active"}
    # Plain and masked units are compiled, those that pack are not.
    assert seen == [True, True, False, False] * 2
    assert tf_keras.mixed_precision.global_policy().name == before


def test_a_precision_that_the_device_lacks(monkeypatch):
    def lacking(*arguments, **options):
        raise tf.errors.UnimplementedError(None, None, "no such kernel")

    monkeypatch.setattr(device, "Convolution", lacking)
    said = r"--dtype float16 does not work on this cpu \(no such kernel\)"
    with (
        pytest.raises(ValueError, match=said),
        device.Device("cpu", "float16").used(),
    ):
        pass


def test_blocks_of_the_extractor(measures):
    flags = ["--image-size", "224", "--points", "tau 0.01", "--turns", 1, "--json"]
    code, out, _ = measures("extractor", *flags, "--blocks", 1)
    assert code == 0
    left = {line["what"]: line["flops_left"] for line in json.loads(out)["results"]}
    assert left.keys() == {"plain", "SACT tau 0.01 dense", "SACT tau 0.01 auto"}
    # Block 1 runs 2.6 of 3 units, and all that is before it; the first three blocks
    # together have less than half left.
    assert left["plain"] == 1
    assert 0.85 < left["SACT tau 0.01 auto"] < 1


def test_given_masks(measures, monkeypatch):
    monkeypatch.setattr(settings, "MASK_SHARES", (1.0, 0.3))
    flags = ["--image-size", "224", "--blocks", 1, "--turns", 1, "--json"]
    code, out, _ = measures("masks", *flags)
    assert code == 0
    left = {}
    for line in json.loads(out)["results"]:
        left.setdefault(line["note"], {})[line["what"]] = line["flops_left"]
    names = {"plain", "dense", "positions", "auto"}
    assert left["100% active"] == dict.fromkeys(names, 1.0)
    shares = left["30% active"]
    assert shares.keys() == names and shares.pop("plain") == 1
    # The root and the first of three units are always paid.
    assert len(set(shares.values())) == 1 and 0.5 < shares["dense"] < 0.9


@pytest.mark.parametrize("kind", ["blob", "blobs", "scattered"])
def test_forced_halting_has_the_means_that_were_asked_for(kind):
    means, maps = (1.6, 2.5, 3.7, 1.2), [(24, 31), (12, 16), (6, 8), (3, 4)]
    model = sact_tf.ResNet("imagenet", (2, 3, 5, 2), "sact", 10, base_channels=4)
    change = forced.force_halting(model, maps, means, kind)
    record = model.introspect(np.zeros([1, 96, 124, 3], np.float32))
    for block, mean, (height, width) in zip(record["blocks"], means, maps, strict=True):
        counts = block["num_units"].numpy()
        assert abs(counts.mean() - mean) <= 2 / (height * width)
        assert len(np.unique(counts)) > 1
    change(np.random.default_rng(1))
    others = model.introspect(np.zeros([1, 96, 124, 3], np.float32))["blocks"]
    for block, other, mean in zip(record["blocks"], others, means, strict=True):
        counts = other["num_units"].numpy()
        assert (counts != block["num_units"].numpy()).any()
        assert 0.94 * mean <= counts.mean() <= 1.06 * mean


def test_what_is_renewed_gives_the_median(monkeypatch):
    ticks = iter([0.0, 0.3, 1.0, 1.0, 2.0, 2.1])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    ran, renewed = [], []
    seconds = timing.fastest(
        {"one": lambda: ran.append(len(renewed))}, 3, "title", lambda: renewed.append(1)
    )
    assert seconds["one"] == pytest.approx(0.1)
    assert ran == list(range(1, timing._WARM_UP + 4))


def test_masks_that_shrink_have_their_share_on_average():
    active = masks.masks("shrinking", (1, 20, 30), 0.3, 22)
    assert active.shape == (22, 1, 20, 30)
    assert active.mean() == pytest.approx(0.3, abs=0.01)
    assert not (active[1:] & ~active[:-1]).any()


def test_threshold_is_where_packed_units_are_as_fast_as_masked_ones(monkeypatch):
    def fastest(candidates, turns, title):
        assert candidates.keys() == {"masked", "positions"}
        share = float(title.rpartition(" ")[2].rstrip("%")) / 100
        return {"masked": 0.8, "positions": 0.1 + share}

    monkeypatch.setattr(calibrate, "fastest", fastest)
    layers = units.bottlenecks(16, 2)
    assert calibrate._packing_threshold(layers, (1, 12, 12), 1) == 0.7


def test_price_of_packing_is_what_it_costs_that_half_of_a_map_halts(monkeypatch):
    gathered, from_map = [], Packed.from_map

    def counted(layout, features, active, *others):
        gathered.append(float(tf.reduce_mean(tf.cast(active, tf.float32))))
        return from_map(layout, features, active, *others)

    def fastest(candidates, turns, title):
        tf.config.run_functions_eagerly(True)
        try:
            for candidate in candidates.values():
                candidate()
        finally:
            tf.config.run_functions_eagerly(False)
        return {"half": 1.5, "all": 1.0}

    monkeypatch.setattr(Packed, "from_map", counted)
    monkeypatch.setattr(calibrate, "fastest", fastest)
    assert calibrate._packing_seconds((6, 8, 16), 1) == (0.5, 6 * 8 * 16)
    assert gathered == [0.5]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["units", "--block", 5], "--block must be 1 to 4. Received: 5"),
        (["extractor", "--blocks", 4], "--blocks must be 1 to 3. Received: 4"),
        (["units", "--turns", 0], "--turns must be at least 1. Received: 0"),
        (["network", "--batch-size", 0], "--batch_size must be at least 1"),
        (["network", "--points", "tau 1"], "--points for 224 are tau 0.01, tau 0.005"),
        (["units", "--device", "gpu"], "--device gpu: TensorFlow sees no GPU here"),
        (["units", "--dtype", "tf32"], "--dtype tf32 is of GPUs, and this is a CPU"),
        (["calibrate", "--jit"], "leave --dtype and --jit out"),
        (["training", "--dtype", "float16"], "without a scaled loss"),
    ],
)
def test_bad_input(flags, message, measures):
    code, out, err = measures(*flags)
    assert code == 2 and not out and message in err.splitlines()[-1]


def test_flops_left_of_masks():
    active = tf.constant(masks.masks("blob", (1, 10, 10), 1.0, 1))
    assert masks.flops_left(active, 16) == 1.0
