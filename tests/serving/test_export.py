import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.data import preprocessing
from sact_tf.serving import checks, classification, export, warmup
from tests.models.test_resnet import spread_halting
from tests.serving import pictures, stock

SIDE = 64


def network(adaptivity="sact", family="imagenet"):
    tf_keras.utils.set_random_seed(0)
    units = (2, 2, 1, 2) if family == "imagenet" else (2, 2, 2)
    model = sact_tf.ResNet(family, units, adaptivity, 7, base_channels=4)
    return spread_halting(model)


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def servable(model):
    return classification.Classifier(
        model, SIDE, labels=[f"label {i}" for i in range(7)], top_k=3
    )


@pytest.fixture(scope="module")
def exported(servable, tmp_path_factory):
    return export.write(servable, tmp_path_factory.mktemp("served"), "tiny")


def expected(model, images, halting_bias=0.0, crop=True):
    """The answer, from the network's own interface, image by image prepared."""

    @tf.function
    def prepare(image):
        if crop:
            return preprocessing.EVALUATION[model.family](image, SIDE)
        return preprocessing.whole_image(image, SIDE, model.family)

    prepared = tf.stack([prepare(tf.constant(image)) for image in images])
    # TensorFlow rounds otherwise where it knows the size of the batch in advance.
    any_batch = tf.TensorSpec([None, SIDE, SIDE, 3])
    signature = [any_batch, tf.TensorSpec([])]
    introspect = tf.function(model.introspect, signature, autograph=False)
    return introspect(prepared, tf.constant(halting_bias))


def check(answer, record):
    np.testing.assert_array_equal(answer["flops"], record["flops"])
    np.testing.assert_array_equal(answer["ponder_cost"], record["ponder_cost"])
    probabilities = tf.nn.softmax(record["logits"]).numpy()
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(answer["classes"], order)
    np.testing.assert_array_equal(
        answer["probabilities"], np.take_along_axis(probabilities, order, 1)
    )


def test_the_answer_is_the_networks(model, servable):
    images = [pictures.image(*size) for size in ((64, 64), (90, 200), (333, 41))]
    files = tf.constant([pictures.png(image) for image in images])
    check(servable.serving_default(files), expected(model, images))
    check(servable.serving_default(files, 1.5), expected(model, images, 1.5))
    answer = servable.serving_default(files)
    names = [[f"label {i}".encode() for i in row] for row in answer["classes"].numpy()]
    np.testing.assert_array_equal(answer["names"], names)
    same = np.stack([images[1]] * 2)
    check(servable.tensors(same), expected(model, same))


def test_every_image_has_its_halting_bias(model, servable):
    images = [pictures.image(64, 64, seed) for seed in range(4)]
    files = tf.constant([pictures.png(image) for image in images])
    biases = [2.0, -1.0, 2.0, 0.0]
    answer = servable.explain(files, tf.constant(biases))
    for index, bias in enumerate(biases):
        record = expected(model, images[index : index + 1], bias)
        assert answer["flops"][index] == record["flops"][0]
        np.testing.assert_allclose(
            answer["ponder_cost_map"][index],
            record["ponder_cost_map"][0, ..., 0],
            rtol=1e-5,
        )
    assert len(set(answer["flops"].numpy())) == 4


def test_explain_says_where(model, servable):
    images = [pictures.image(100, 60), pictures.image(64, 64)]
    files = tf.constant([pictures.png(image) for image in images])
    answer, record = servable.explain(files), expected(model, images)
    check(answer, record)
    np.testing.assert_array_equal(
        answer["ponder_cost_map"], record["ponder_cost_map"][..., 0]
    )
    for index, block in enumerate(record["blocks"]):
        np.testing.assert_array_equal(
            answer[f"block{index + 1}_ponder_cost_map"], block["ponder_cost"]
        )
    # 100 // 16 = 6 rows and 60 // 16 = 3 columns are cut off at both ends.
    region = [6 / 100, 3 / 60, 94 / 100, 57 / 60]
    np.testing.assert_allclose(answer["map_region"][0], region, rtol=1e-6)


@pytest.mark.parametrize(
    ("adaptivity", "family"), [("act", "imagenet"), ("none", "cifar")]
)
def test_other_networks(adaptivity, family):
    model = network(adaptivity, family)
    servable = classification.Classifier(model, SIDE, crop=False, top_k=3)
    image = pictures.image(50, 77)
    files = tf.constant([pictures.png(image)] * 2)
    answer = servable.explain(files)
    check(answer, expected(model, [image] * 2, crop=False))
    np.testing.assert_array_equal(answer["map_region"], [[0, 0, 1, 1]] * 2)
    # Where nothing halts a bias would change nothing, and is refused.
    if adaptivity == "none":
        assert "only zero is taken" in servable.documentation["halting_bias"]
        with pytest.raises(tf.errors.InvalidArgumentError, match="no halting scores"):
            servable.explain(files, [0.0, 1.0])
    else:
        servable.explain(files, [0.0, 1.0])


def test_bit_equal_in_a_fresh_process(servable, exported, tmp_path):
    stock.check_bits(servable, exported.folder, tmp_path)


def test_loads_through_the_c_api(servable, exported, tmp_path):
    stock.check_c_api(servable, exported.folder, tmp_path)


def test_what_is_written(servable, exported):
    folder = exported.folder
    assert folder.name == "1" and exported.version == 1
    assert (folder / "assets" / "labels.txt").read_text().split("\n")[:2] == [
        "label 0",
        "label 1",
    ]
    text = (folder / export.DOCUMENTATION).read_text()
    for name in ("serving_default", "tensors", "explain", *servable.documentation):
        assert name in text
    requests = list(warmup.read(folder))
    assert len(requests) == exported.warmup_requests
    assert {r.model_spec.signature_name for r in requests} == set(servable.signatures)
    assert "Conv2D" in exported.ops and "DecodeImage" in exported.ops
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def small():
    """A servable that is written in no time."""

    class Small(tf.Module):
        documentation = {"images": "in", "out": "out"}  # noqa: RUF012
        limits = checks.Limits()
        arguments = {"family": "small"}  # noqa: RUF012
        broken = False

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "images")])
        def run(self, images):
            if self.broken:
                images = tf.numpy_function(np.square, [images], tf.float32)
            return {"out": images}

        @property
        def signatures(self):
            return {"serving_default": self.run}

        def warmup_requests(self):
            yield "serving_default", {"images": np.zeros([1], np.float32)}

    return Small()


def test_versions_are_never_replaced_unasked(tmp_path):
    assert export.write(small(), tmp_path, "a").version == 1
    (tmp_path / "a" / "7").mkdir()
    assert export.write(small(), tmp_path, "a").version == 8
    before = (tmp_path / "a" / "1" / "saved_model.pb").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="exists already"):
        export.write(small(), tmp_path, "a", version=1)
    assert (tmp_path / "a" / "1" / "saved_model.pb").stat().st_mtime_ns == before
    export.write(small(), tmp_path, "a", version=1, overwrite=True)
    assert (tmp_path / "a" / "1" / "saved_model.pb").stat().st_mtime_ns != before
    for name, version in (("../a", 1), ("", 1), ("a", 0)):
        with pytest.raises(ValueError, match="Received"):
            export.write(small(), tmp_path, name, version=version)


def test_operations_that_servers_lack_are_refused(tmp_path):
    servable = small()
    servable.broken = True
    with pytest.raises(ValueError, match=r"lacks: PyFunc"):
        export.write(servable, tmp_path, "a")
    assert not list((tmp_path / "a").iterdir())


def test_server_configs(tmp_path):
    limits = checks.Limits(max_batch_size=12)
    assert len(export.write_server_configs(tmp_path, "a", limits)) == 3
    assert "value: 12" in (tmp_path / export.BATCHING).read_text()
    (tmp_path / export.BATCHING).write_text("mine")
    assert len(export.write_server_configs(tmp_path, "b", limits)) == 1
    assert not export.write_server_configs(tmp_path, "b", limits)
    models = (tmp_path / export.MODELS).read_text()
    assert models.count("base_path") == 2 and str(tmp_path / "b") in models
    assert (tmp_path / export.BATCHING).read_text() == "mine"
    (tmp_path / export.MODELS).write_text("model_config_list { nonsense }")
    with pytest.raises(ValueError, match="no configuration of models"):
        export.write_server_configs(tmp_path, "a", limits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 31}, "image_size must be at least 32"),
        ({"labels": ["a"]}, "needs as many labels"),
        ({"labels": ["a\nb"] * 7}, "must be one line"),
        ({"top_k": 0}, "top_k must be at least 1"),
    ],
)
def test_bad_arguments(model, options, message):
    with pytest.raises(ValueError, match=message):
        classification.Classifier(model, **{"image_size": SIDE, **options})
    with pytest.raises(ValueError, match="max_pixels must be at least 1"):
        checks.Limits(max_pixels=0)
