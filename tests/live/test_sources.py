import numpy as np
import pytest
import tensorflow as tf

from sact_tf.checkpoints.paths import variables_by_path
from sact_tf.live import photographs, sources
from sact_tf.serving import export
from tests.detection import tiny
from tests.live.serving import LABELS, classifier, source
from tests.serving import pictures
from tests.serving.loopback_server import Server
from tests.serving.test_export import network

PHOTOGRAPH = photographs.read(pictures.png(pictures.image(70, 100)), "a.png")


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return export.write(classifier(model), folder, "tiny", version=2).folder.parent


@pytest.fixture(params=["network", "export", "http", "grpc"])
def kind(request):
    return request.param


@pytest.fixture
def opened(kind, model, served):
    if kind == "network":
        yield source(model)
    elif kind == "export":
        yield sources.Export(served)
    else:
        with Server("tiny", served) as server:
            place = server.rest if kind == "http" else server.grpc
            asked = sources.Server(f"{kind}://{place}", "tiny")
            yield asked
            asked.close()


def test_all_give_one_answer(opened, kind, model):
    assert opened.halts
    for bias in (0.0, 1.5):
        answer = opened.explain(PHOTOGRAPH, bias)
        image = classifier(model)._prepare(tf.constant(PHOTOGRAPH.pixels))[0]
        expected = model.introspect(image[tf.newaxis], bias)
        assert answer["flops"] == expected["flops"][0]
        np.testing.assert_allclose(
            answer["ponder_cost_map"], expected["ponder_cost_map"][0, ..., 0], rtol=1e-5
        )
        assert answer["names"][0] == LABELS[np.argmax(expected["logits"])]
    plain = sources.plain(model).introspect(image[tf.newaxis])["flops"][0]
    most = opened.baseline_flops(PHOTOGRAPH)
    if kind == "network":
        assert opened.baseline == "plain network" and most == plain
    else:
        # It still asks all scores, which weigh much beside units this narrow.
        assert opened.baseline == "never stopping" and plain < most < 2 * plain
        never = model.introspect(image[tf.newaxis], sources.NEVER)
        assert most == never["flops"][0]
        units = [block["num_units"] for block in never["blocks"]]
        assert all(np.all(n == c) for n, c in zip(units, model.units, strict=True))
    passes = opened.passes(PHOTOGRAPH, 0.0)
    assert list(passes) == ["this", "baseline"]
    for run in passes.values():
        run()


def test_plain_networks_have_nothing_to_compare(tmp_path):
    model = network("none")
    plain = source(model)
    folder = export.write(classifier(model), tmp_path, "plain").folder
    for opened in (plain, sources.Export(folder)):
        assert not opened.halts and opened.baseline == ""
        assert list(opened.passes(PHOTOGRAPH, 0.0)) == ["this"]


def test_the_plain_one_has_the_weights(model):
    given = variables_by_path(model)
    twin = variables_by_path(sources.plain(model))
    assert twin and given.keys() - twin.keys() == {
        path for path in given if "/halting" in path
    }
    for path, variable in twin.items():
        np.testing.assert_array_equal(variable, given[path], path)


def test_the_plain_detector_halts_nowhere():
    detector = tiny.detector(settings={"head_tau": 0.01})
    twin = sources.plain(detector)
    assert twin.halting_adaptivity == "none"
    for part in ("proposal_head", "box_head"):
        names = [v.name for v in getattr(detector, part).variables]
        assert len(names) >= len(getattr(twin, part).variables)
    np.testing.assert_array_equal(
        twin.box_head.classes.kernel, detector.box_head.classes.kernel
    )


def test_the_highest_version_is_taken(tmp_path):
    for version in ("2", "10", "3"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "saved_model.pb").touch()
    (tmp_path / "11").mkdir()
    assert sources.version_folder(tmp_path) == tmp_path / "10"
    assert sources.version_folder(tmp_path / "3") == tmp_path / "3"
    assert sources.version_folder(tmp_path / "none") == tmp_path / "none"


def test_what_is_no_export(tmp_path):
    other = tf.Module()
    other.double = tf.function(
        lambda x: 2 * x, input_signature=[tf.TensorSpec([None], tf.float32)]
    )
    folder = tmp_path / "other"
    tf.saved_model.save(other, str(folder), signatures={"double": other.double})
    with pytest.raises(ValueError, match=r"without the signature explain.*: double"):
        sources.Export(folder)
    for address in ("ftp://localhost:1", "https://localhost:8501"):
        with pytest.raises(ValueError, match=r"begins with http:// .REST. or grpc://"):
            sources.Server(address, "tiny")
