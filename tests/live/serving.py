"""Pages around networks that are small enough for tests, served in this process."""

import contextlib
import threading

from sact_tf.live import page, server, sources
from sact_tf.serving import checks, classification
from tests.serving.test_export import SIDE, network

LABELS = [f"label {index}" for index in range(7)]


def classifier(model):
    limits = checks.Limits(min_side=32)
    return classification.Classifier(
        model, SIDE, crop=False, labels=LABELS, limits=limits
    )


def source(model):
    halts = model.adaptivity != "none"
    plain = classifier(sources.plain(model)) if halts else None
    return sources.Network(classifier(model), halts, plain)


def tiny_page(examples=None, adaptivity="sact"):
    return page.Page(source(network(adaptivity)), "tiny", examples or {})


@contextlib.contextmanager
def served(shown):
    with server.Server(shown) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield serving
        finally:
            serving.shutdown()
            thread.join()
