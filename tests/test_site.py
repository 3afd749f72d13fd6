"""The documentation builds as a site, without a warning."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (pip install 'sact_tf[docs]')")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        # What the theme says of a future mkdocs; `make docs` leaves it out, too.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_of_docs_is_there(site):
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "index.md"]
    assert len(pages) > 10
    for page in pages:
        relative = page.relative_to(ROOT / "docs").with_suffix("")
        assert (site / relative / "index.html").exists(), page


def test_every_page_is_in_the_navigation(site):
    html = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        relative = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        place = "." if relative == "index" else f"{relative}/"
        assert f'href="{place}"' in html, page


def test_the_reference_has_public_names(site):
    html = (site / "reference" / "index.html").read_text(encoding="utf-8")
    for name in (
        "sact_tf.ResNet",
        "sact_tf.ResNet.introspect",
        "sact_tf.training.fit",
        "sact_tf.halting.step",
        "sact_tf.serving.client.Client",
    ):
        assert f'id="{name}"' in html, name
    # Arguments are a list, and no empty sections are left of them.
    assert "halting_bias" in html and "tau" in html
    for name in re.findall(r"^::: (\S+)", _reference(), re.M):
        assert f'id="{name}"' in html, name


def _reference():
    return (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def test_nothing_comes_from_elsewhere(site):
    for page in (site / "index.html", site / "live" / "index.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\" >]+)", html)
        loaded += re.findall(
            r"<link[^>]* rel=\"?stylesheet\"?[^>]* href=\"?(\S+)", html
        )
        assert loaded and not [place for place in loaded if "//" in place]
