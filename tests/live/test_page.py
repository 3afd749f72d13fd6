import base64
import concurrent.futures
import json
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from sact_tf.live import measuring, page, photographs, server
from tests.live.serving import LABELS, served, tiny_page
from tests.serving import pictures, test_detection
from tests.serving.test_server import bomb

PICTURE = pictures.png(pictures.image(70, 100))


@pytest.fixture(scope="module")
def shown():
    return tiny_page({"an example": PICTURE})


@pytest.fixture(scope="module")
def serving(shown):
    with served(shown) as running:
        yield running


def ask(serving, path, body=None, **headers):
    """Status, type and content of an answer."""
    url = serving.url.rstrip("/") + path
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def refusal(*arguments, **headers):
    status, _, content = ask(*arguments, **headers)
    (sentence,) = json.loads(content).values()
    assert status >= 400 and "\n" not in sentence and "Traceback" not in sentence
    return status, sentence


def test_a_higher_bias_costs_less_elsewhere(shown):
    key = shown.add(PICTURE, "a.png")["key"]
    as_trained, sooner = (shown.answer(key, bias) for bias in (0.0, 2.0))
    assert sooner["flops"] < as_trained["flops"] < as_trained["baseline_flops"]
    assert sooner["ponder_cost"] < as_trained["ponder_cost"]
    assert sooner["baseline_flops"] == as_trained["baseline_flops"]
    (whole, *blocks), _ = as_trained["maps"], sooner["maps"]
    assert [m["name"] for m in blocks] == ["block1", "block2", "block3", "block4"]
    assert whole["values"] != sooner["maps"][0]["values"]
    # Of all blocks together at the resolution of the first.
    total = sum(np.mean(values(block)) for block in blocks)
    np.testing.assert_allclose(np.mean(values(whole)), total, rtol=1e-5)
    np.testing.assert_allclose(total, as_trained["ponder_cost"], rtol=1e-5)
    # Nothing is below what the legend begins with; with a high bias all is there.
    assert as_trained["least"] == 8.0 and values(whole).min() >= 8.0
    at_once = shown.answer(key, 100.0)
    np.testing.assert_array_equal(values(at_once["maps"][0]), 8.0)
    names = [entry["name"] for entry in as_trained["classes"]]
    assert len(names) == 5 and set(names) <= set(LABELS)
    assert set(shown.times(key, 0.0)) == {"this", "baseline"}


def values(packed):
    flat = np.frombuffer(base64.b64decode(packed["values"]), "<f4")
    return flat.reshape(packed["height"], packed["width"])


def test_detections():
    from sact_tf.live import sources

    detector = test_detection.servable_of(test_detection.network())
    shown = page.Page(sources.Network(detector, True, detector), "d", {}, score=0.0)
    key = shown.add(PICTURE, "a.png")["key"]
    answer = shown.answer(key, 0.0)
    assert answer["boxes"] and answer["flops"] == answer["baseline_flops"]
    for entry in answer["boxes"]:
        assert entry["name"] == detector.labels[entry["number"]]
        ymin, xmin, ymax, xmax = entry["box"]
        assert -0.01 <= ymin < ymax <= 1.01 and -0.01 <= xmin < xmax <= 1.01
    assert values(answer["maps"][0]).shape == values(answer["maps"][1]).shape
    none = page.Page(sources.Network(detector, True, detector), "d", {}, score=1.0)
    none.add(PICTURE, "a.png")
    assert none.answer(key, 0.0)["boxes"] == []


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"To be, or not to be", "hamlet.txt", "hamlet.txt is no readable image"),
        (b"", "empty.png", "the file is empty"),
        (PICTURE[:300], "half.png", "half.png is no readable image"),
        (bomb(), "bomb.png", "bomb.png has 12000 x 12000 pixels"),
    ],
)
def test_bad_files_get_a_sentence(serving, content, name, words):
    status, sentence = refusal(
        serving, "/photographs", content, **{"X-Name": name.replace(" ", "%20")}
    )
    assert status == 400 and words in sentence


def test_images_that_the_network_refuses(serving):
    small = pictures.png(pictures.image(20, 40))
    _, _, content = ask(serving, "/photographs", small)
    question = {"photograph": json.loads(content)["key"], "halting_bias": 0.0}
    status, sentence = refusal(serving, "/answer", question)
    assert status == 400 and sentence.startswith("The image has 20 x 40 pixels")


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF"])
def test_formats_that_browsers_or_networks_do_not_know(serving, kind, tmp_path):
    path = tmp_path / "a"
    pixels = pictures.image(70, 100)
    Image.fromarray(pixels).save(path, kind)
    status, _, content = ask(serving, "/photographs", path.read_bytes())
    there = json.loads(content)
    assert status == 200 and (there["height"], there["width"]) == (70, 100)
    status, headers, content = ask(serving, f"/photographs/{there['key']}")
    assert headers["Content-Type"] == "image/png" and content.startswith(b"\x89PNG")
    question = {"photograph": there["key"], "halting_bias": 0.0}
    assert ask(serving, "/answer", question)[0] == 200


def test_wrong_questions(serving, shown):
    key = shown.add(PICTURE, "a.png")["key"]
    gone = {"photograph": "gone", "halting_bias": 0.0}
    assert "no longer kept" in refusal(serving, "/answer", gone)[1]
    for bias in ("much", None, float("nan"), float("inf")):
        question = {"photograph": key, "halting_bias": bias}
        for path in ("/answer", "/times"):
            assert "must be a finite number" in refusal(serving, path, question)[1]
    assert refusal(serving, "/answer", b"[]")[0] == 400
    assert refusal(serving, "/answer", b" " * 10_001)[0] == 413
    assert refusal(serving, "/other", b"{}")[0] == 404
    for path in ("/other", "/../server.py", "/examples/other", "/static/page.js"):
        assert refusal(serving, path)[0] == 404
    # It goes on all the same.
    assert ask(serving, "/about")[0] == 200


def test_other_sites_may_not_ask(serving):
    host = serving.url.split("/")[2]
    assert ask(serving, "/about", Origin=f"http://{host}")[0] == 200
    assert refusal(serving, "/about", Origin="http://elsewhere.example")[0] == 403
    assert refusal(serving, "/about", Host="elsewhere.example")[0] == 403


def test_the_page_loads_nothing_from_elsewhere(serving):
    for path, kind in (("/", "html"), ("/page.css", "css"), ("/page.js", "javascript")):
        status, headers, content = ask(serving, path)
        assert status == 200 and kind in headers["Content-Type"]
        assert b"http://" not in content and b"https://" not in content
        assert "default-src 'self'" in headers["Content-Security-Policy"]
    about = json.loads(ask(serving, "/about")[2])
    assert about["examples"] == ["an example"] and len(about["colours"]) == 256
    assert ask(serving, "/examples/an%20example")[2] == PICTURE
    assert ask(serving, "/thumbnails/an%20example")[1]["Content-Type"] == "image/png"


def test_many_at_once_get_their_own_answers(serving, shown):
    keys = [
        shown.add(pictures.png(pictures.image(64 + 8 * i, 80)), "a")["key"]
        for i in range(3)
    ]
    questions = [
        {"photograph": key, "halting_bias": bias}
        for key in keys
        for bias in (-1.0, 0.0, 1.0)
    ]

    def answered(question):
        return json.loads(ask(serving, "/answer", question)[2])

    alone = [answered(question) for question in questions]
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        clocks = [pool.submit(ask, serving, "/times", q) for q in questions[:2]]
        assert list(pool.map(answered, questions)) == alone
    assert all(clock.result()[0] == 200 for clock in clocks)
    assert len({answer["flops"] for answer in alone}) > 3


def test_a_port_that_is_taken(serving, shown):
    with pytest.raises(ValueError, match=r"cannot be served at 127\.0\.0\.1, port"):
        server.Server(shown, port=serving.server_address[1])
    with pytest.raises(ValueError, match=r"cannot be served at nowhere\.invalid"):
        server.Server(shown, "nowhere.invalid")


def test_the_photographs_used_least_go_first():
    files = [pictures.png(pictures.image(40, 40, seed)) for seed in range(3)]
    first, second, third = (photographs.read(file, "a") for file in files)
    store = photographs.Store(2 * first.num_bytes + 1000)
    store.add(first)
    store.add(second)
    assert store[first.key] is first
    store.add(third)
    assert store[first.key] is first and store[third.key] is third
    with pytest.raises(KeyError):
        store[second.key]


def test_the_clock_takes_turns_warmed_up(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])

    def candidate(name, durations):
        remaining = iter(durations)

        def run():
            order.append(name)
            now[0] += next(remaining)

        return run

    times = measuring.medians(
        {"a": candidate("a", [50, 1, 3, 2]), "b": candidate("b", [60, 7, 9, 8])}, 10.0
    )
    assert times == {"a": 2.0, "b": 8.0} and order == ["a", "b"] * 4


def test_examples_without_a_download():
    for name, file in photographs.own_examples().items():
        assert min(photographs.read(file, name).pixels.shape[:2]) >= 192
