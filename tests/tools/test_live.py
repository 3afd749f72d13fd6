import numpy as np
import pytest
import tensorflow as tf

from sact_tf.checkpoints import files
from sact_tf.cli import live
from sact_tf.live import server
from sact_tf.serving import export
from tests.live.serving import classifier
from tests.serving import pictures
from tests.serving.test_export import network
from tests.tools.calling import call


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    files.save(network(), path)
    return path


@pytest.fixture
def shown(monkeypatch):
    """Pages that would be served, until a Ctrl-C that comes at once."""
    pages = []

    def serve_forever(serving):
        pages.append(serving.page)
        raise KeyboardInterrupt

    monkeypatch.setattr(server.Server, "serve_forever", serve_forever)
    return pages


def test_says_where_the_page_is(model, shown, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "examples"
    folder.mkdir()
    (folder / "one.png").write_bytes(pictures.png(pictures.image(70, 100)))
    (folder / "bad.png").write_bytes(b"no image")
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"class {number}\n" for number in range(7)))
    flags = ["--port", 0, "--images", folder, "--labels", labels]
    code, out, errors = call(monkeypatch, capsys, live, model, *flags)
    assert code == 0 and "http://127.0.0.1:" in out and "Ctrl+C ends it" in out
    assert "tiny.keras, SACT, units 2, 2, 1, 2, 224 x 224 pixels" in out
    assert "bad.png is no readable image" in errors and "Traceback" not in errors
    (page,) = shown
    assert page.about()["examples"] == ["one.png"] and page.about()["halts"]
    key = page.add(page.examples["one.png"], "one.png")["key"]
    names = {entry["name"] for entry in page.answer(key, 0.0)["classes"]}
    assert names <= set(labels.read_text().splitlines())
    # The address, and nothing of others.
    assert "Whoever reaches" not in errors


def test_whoever_opens_it_to_others_is_told(model, shown, monkeypatch, capsys):
    flags = ["--port", 0, "--host", "0.0.0.0", "--image_size", 64]
    code, out, errors = call(monkeypatch, capsys, live, model, *flags)
    assert code == 0 and "http://localhost:" in out and "64 x 64 pixels" in out
    assert "Whoever reaches this machine" in errors


def test_folders_of_exports_and_of_keras(shown, tmp_path, monkeypatch, capsys):
    exported = export.write(classifier(network()), tmp_path, "served").folder.parent
    code, out, _ = call(monkeypatch, capsys, live, exported, "--port", 0)
    assert code == 0 and "served/1" in out
    assert shown.pop().about()["baseline"] == "never stopping"
    flags = ["--labels", exported]
    code, _, errors = call(monkeypatch, capsys, live, exported, *flags)
    assert code == 2 and "--labels cannot be said of" in errors
    # The other kind is opened as networks are.
    of_keras = tmp_path / "of_keras"
    of_keras.mkdir()
    for name in ("saved_model.pb", "keras_metadata.pb"):
        (of_keras / name).touch()
    code, _, errors = call(monkeypatch, capsys, live, of_keras)
    assert code == 2 and "neither a .keras file nor a SavedModel" in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.keras"], "There is no saved network nothing.keras"),
        (["MODEL", "--port", 70000], "cannot be served at 127.0.0.1, port 70000"),
        (["MODEL", "--port", -1], "--port must be at least 0. Received: -1"),
        (["MODEL", "--images", "nowhere"], "--images is to be a folder"),
        (["MODEL", "--score", 2], "--score must be 0 to 1. Received: 2.0"),
        (["MODEL", "--image_size", 8], "image_size must be at least 32"),
        (["http://127.0.0.1:1"], "127.0.0.1:1 is not there, or takes no requests"),
        (["ftp://127.0.0.1:1"], "begins with http:// (REST) or grpc://"),
        (["http://127.0.0.1:1", "--labels", "x"], "--labels cannot be said of"),
    ],
)
def test_bad_arguments(model, shown, arguments, words, monkeypatch, capsys):
    monkeypatch.setattr("sact_tf.serving.client.ATTEMPTS", 1)
    arguments = [model if argument == "MODEL" else argument for argument in arguments]
    code, _, errors = call(monkeypatch, capsys, live, *arguments)
    (line,) = errors.splitlines()
    assert code == 2 and words in line and not shown


def test_other_saved_models(tmp_path, monkeypatch, capsys):
    other = tf.Module()
    other.weights = tf.Variable(np.zeros(3))
    tf.saved_model.save(other, str(tmp_path / "other"))
    code, _, errors = call(monkeypatch, capsys, live, tmp_path / "other")
    assert code == 2 and "without the signature explain" in errors
