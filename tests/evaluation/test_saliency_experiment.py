import json

import numpy as np
import pytest

from sact_tf.data import cat2000
from sact_tf.evaluation import saliency, saliency_experiment
from sact_tf.evaluation.saliency_experiment import Experiment
from tests import cat2000_like

SIGMAS, GAMMAS = (0, 1, 3), (0.005, 0.5)
SIZE = (24, 14)


class BrightnessNetwork:
    """Spends most where an image is bright."""

    def __init__(self):
        self.shapes = []

    def introspect(self, images):
        self.shapes.append(images.shape)
        return {"ponder_cost_map": images.mean(axis=-1, keepdims=True) + 2}


def experiment(root, output, **options):
    options = {"sigmas": SIGMAS, "gammas": GAMMAS, "batch_size": 3, **options}
    return Experiment(cat2000.find(root), output, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cat2000")
    return cat2000_like.write(folder, count=5, observers=3)


def test_result_is_that_of_a_plain_loop(root, tmp_path):
    with experiment(root, tmp_path) as run:
        result = run.network("bright", BrightnessNetwork(), SIZE, {})
        center, human = run.baselines()
    gammas = (0.0, *GAMMAS)
    assert (result.sigmas, result.gammas) == (SIGMAS, gammas)

    loaded = [saliency_experiment.load(e, SIZE) for e in cat2000.find(root)]
    for item in loaded:
        item.ponder_cost_map = item.image.mean(axis=-1) + 2
    halves = {half: [] for half in ("tune", "validation")}
    for item in loaded:
        halves[item.example.half].append(item)
    surface = np.mean(
        [
            [
                [
                    saliency.auc_judd(
                        saliency.resize(
                            saliency.postprocess(item.ponder_cost_map, s, g), 27, 48
                        ),
                        item.fixations,
                    )
                    for g in gammas
                ]
                for s in SIGMAS
            ]
            for item in halves["tune"]
        ],
        axis=0,
    )
    np.testing.assert_allclose(result.surface, surface, atol=1e-4)

    best = np.unravel_index(surface.argmax(), surface.shape)
    tuned, alone, paper = result.rows
    assert (tuned.sigma, tuned.gamma) == (SIGMAS[best[0]], gammas[best[1]])
    assert (alone.sigma, alone.gamma) == (SIGMAS[surface[:, 0].argmax()], 0)
    assert (paper.sigma, paper.gamma) == (10, 0.005)
    for row in result.rows:
        expected = [
            saliency.all_scores(
                saliency.postprocess(item.ponder_cost_map, row.sigma, row.gamma),
                item.fixations,
                saliency.heat_map(item.fixations),
                saliency.center_map(27, 48),
            )
            for item in halves["validation"]
        ]
        assert row.num_images == len(expected) == 6
        for metric in saliency.METRICS:
            mean = np.mean([scores[metric] for scores in expected])
            assert row.scores[metric] == pytest.approx(mean)
        judd = [scores["auc_judd"] for scores in expected]
        error = np.std(judd, ddof=1) / np.sqrt(6)
        assert row.auc_judd_error == pytest.approx(error)
        gains = [
            scores["auc_judd"]
            - saliency.auc_judd(saliency.center_map(27, 48), item.fixations)
            for scores, item in zip(expected, halves["validation"], strict=True)
        ]
        assert row.gain == pytest.approx(np.mean(gains))
        error = np.std(gains, ddof=1) / np.sqrt(6)
        assert row.gain_error == pytest.approx(error)
    assert alone.scores["auc_judd"] > 0.9  # People look at the bright patch.
    assert human.scores["auc_judd"] > 0.9 and human.name == "one human"
    assert center.scores["information_gain"] == center.gain == 0


def test_batches_have_images_of_one_size():
    rng = np.random.default_rng(0)
    items = [
        saliency_experiment.Loaded(None, None, rng.random((height, 4, 3)))
        for height in (5, 5, 5, 5, 6, 5)
    ]
    network = BrightnessNetwork()
    done = list(saliency_experiment.ponder_cost_maps(network, items, 3))
    assert [shape[:2] for shape in network.shapes] == [(3, 5), (1, 5), (1, 6), (1, 5)]
    for item, other in zip(done, items, strict=True):
        assert item is other
        np.testing.assert_allclose(
            item.ponder_cost_map, item.image.mean(axis=-1) + 2, rtol=1e-6
        )


def test_an_interrupted_run_goes_on(root, tmp_path):
    class Failing(BrightnessNetwork):
        def introspect(self, images):
            if len(self.shapes) == 1:
                raise KeyboardInterrupt
            return super().introspect(images)

    with experiment(root, tmp_path / "whole") as run:
        whole = run.network("net", BrightnessNetwork(), SIZE, {})
    with (
        pytest.raises(KeyboardInterrupt),
        experiment(root, tmp_path / "parts", batch_size=2, workers=1) as run,
    ):
        run.network("net", Failing(), SIZE, {})
    records = tmp_path / "parts" / "net" / "tune.jsonl"
    records.parent.mkdir(exist_ok=True)
    # Killed in the middle of a line.
    lines = (tmp_path / "whole" / "net" / "tune.jsonl").read_text().splitlines()
    records.write_text("\n".join(lines[:3])[:-20])
    network = BrightnessNetwork()
    with experiment(root, tmp_path / "parts") as run:
        result = run.network("net", network, SIZE, {})
    assert sum(shape[0] for shape in network.shapes) == 10 - 2
    assert result.rows == whole.rows
    assert records.read_text().splitlines() == lines
    # Nothing is left to do.
    network = BrightnessNetwork()
    with experiment(root, tmp_path / "parts") as run:
        assert run.network("net", network, SIZE, {}).rows == whole.rows
    assert not network.shapes


def test_results_of_something_else_are_left_alone(root, tmp_path):
    with experiment(root, tmp_path) as run:
        run.network("net", BrightnessNetwork(), SIZE, {"model": "a"})
        with pytest.raises(
            ValueError, match=r"saliency results with other settings \(model, size\)"
        ):
            run.network("net", BrightnessNetwork(), (12, 7), {"model": "b"})
    with (
        experiment(root, tmp_path, sigmas=(0,)) as run,
        pytest.raises(
            ValueError,
            match=r"net holds saliency results with other settings \(sigmas\)",
        ),
    ):
        run.network("net", BrightnessNetwork(), SIZE, {"model": "a"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with (
        experiment(root, tmp_path) as run,
        pytest.raises(ValueError, match="holds no saliency results"),
    ):
        run.network("mine", BrightnessNetwork(), SIZE, {})


def test_images_that_nobody_looked_at_do_not_count(tmp_path):
    root = cat2000_like.write(tmp_path / "data")
    for name in ("Action/001", "Action/004"):
        path = cat2000_like.fixations_path(root, name)
        cat2000_like.write_fixations(path, np.zeros([27, 48], np.uint8))
    with experiment(root, tmp_path / "output") as run:
        result = run.network("net", BrightnessNetwork(), SIZE, {})
        (center,) = run.baselines()  # No observers here.
    assert {row.num_images for row in [center, *result.rows]} == {3}
    assert np.isfinite(result.surface).all()
    lines = (tmp_path / "output" / "net" / "tune.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"image": "Action/001", "result": None}


def test_one_human_needs_a_second_one(tmp_path):
    root = cat2000_like.write(tmp_path / "data", observers=2)
    alone = root / "trainSet" / "OBSERVERS" / "Art" / "004"
    cat2000_like.write_fixations(alone / "1.mat", np.zeros([27, 48], np.uint8))
    with experiment(root, tmp_path / "output") as run:
        center, human = run.baselines()
    assert (center.num_images, human.num_images) == (4, 3)
    assert np.isfinite([human.gain, *human.scores.values()]).all()


def test_a_constant_map_leaves_the_centre(root, tmp_path):
    class Constant(BrightnessNetwork):
        def introspect(self, images):
            return {"ponder_cost_map": np.full((*images.shape[:3], 1), 3.0)}

    with experiment(root, tmp_path) as run:
        (center, _), result = (
            run.baselines(),
            run.network("net", Constant(), SIZE, {}),
        )
    tuned, alone, _ = result.rows
    expected = center.scores["auc_judd"]
    assert tuned.scores["auc_judd"] == pytest.approx(expected, abs=0.01)
    assert alone.scores["auc_judd"] == pytest.approx(0.5, abs=0.1)


def test_what_cannot_be_run_is_refused(root, tmp_path):
    with pytest.raises(ValueError, match=r"sigmas must be .* Received: \[-1\]"):
        experiment(root, tmp_path, sigmas=[-1])
    with pytest.raises(ValueError, match=r"gammas must be .* Received: \[\]"):
        experiment(root, tmp_path, gammas=[])
    single = cat2000_like.write(tmp_path / "single", count=1)
    with pytest.raises(ValueError, match="no images in the tune half"):
        experiment(single, tmp_path)


def test_table_has_a_line_for_every_row():
    scores = dict.fromkeys(saliency.METRICS, 0.12345)
    rows = [
        saliency_experiment.Row("centre map", scores, 0.001, 0, 0, 10),
        saliency_experiment.Row("net", scores, 0.001, 0.02, 0.003, 10, 10.0, 0.005),
    ]
    table = saliency_experiment.markdown_table(rows).splitlines()
    assert len(table) == 4 and len({len(line) for line in table}) == 1
    cells = [cell.strip() for cell in table[3].split("|")[1:-1]]
    assert cells[:4] == ["net", "10", "0.005", "12.35 ± 0.10"]
    assert cells[4:6] == ["+2.00 ± 0.30", "12.35"]
    assert cells[6:] == ["0.123"] * 5
