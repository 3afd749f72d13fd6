"""The page in a real browser: Debian's Chromium, without a window."""

import shutil
import time

import pytest

from tests.live.serving import served, tiny_page
from tests.serving import pictures

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed (pip install selenium)"
)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if not (BROWSER and DRIVER):
    pytest.skip(
        "there is no chromium with a chromedriver (apt-get install chromium "
        "chromium-driver)",
        allow_module_level=True,
    )

DESKTOP, PHONE = (1280, 900), (390, 844)


def browser(*arguments):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new",
        "--no-sandbox",  # CI is root.
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        *arguments,
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    return webdriver.Chrome(options=options, service=service)


class View:
    """What a person sees and does on the page."""

    def __init__(self, driver):
        self.driver = driver

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def wait(self, condition, what, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what}: {self.driver.page_source[:3000]}"
            time.sleep(0.05)

    def wait_until_idle(self):
        self.wait(
            lambda: self.find("body").get_attribute("data-state") == "idle", "not idle"
        )

    def open(self, path):
        self.find("#file").send_keys(str(path))
        self.wait(
            lambda: (
                self.find("body").get_attribute("data-state") != "idle" or self.message
            ),
            "nothing begins",
        )
        self.wait_until_idle()

    def move(self, bias):
        self.driver.execute_script(
            "const slider = document.getElementById('bias'); slider.value = arguments"
            "[0]; slider.dispatchEvent(new Event('input', {bubbles: true}))",
            bias,
        )
        self.wait_until_idle()

    @property
    def message(self):
        return self.find("#message").text

    def value(self, selector):
        return float(self.find(selector).get_attribute("data-value"))

    def pixels(self):
        return self.driver.execute_script(
            "return document.getElementById('canvas').toDataURL()"
        )

    def width_needed(self):
        return self.driver.execute_script("return document.body.scrollWidth")


@pytest.fixture(scope="module")
def view():
    example = pictures.png(pictures.image(64, 64, seed=1))
    with served(tiny_page({"an example": example})) as serving:
        driver = browser()
        try:
            driver.set_window_size(*DESKTOP)
            driver.get(serving.url)
            seen = View(driver)
            seen.wait_until_idle()
            yield seen
            severe = [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
            # A file that is refused is an error to the browser, too.
            assert [e for e in severe if "400" not in e["message"]] == []
        finally:
            driver.quit()


def test_upload_and_slider(view, tmp_path):
    path = tmp_path / "photograph.png"
    path.write_bytes(pictures.png(pictures.image(70, 100)))
    example = view.pixels()
    view.open(path)
    before, flops = view.pixels(), view.value("#flops .this")
    assert before != example and not view.message
    assert flops < view.value("#flops .baseline")
    assert view.value("#times .this") > 0 and view.value("#times .baseline") > 0
    assert len(view.driver.find_elements("css selector", "#answer li")) == 5
    assert "label" in view.find("#answer li").text
    assert view.find("#low").text == "8.0"
    view.move(2.0)
    assert view.find("#bias-value").text == "2.0"
    assert view.value("#flops .this") < flops
    assert view.pixels() != before
    view.find("#reset").click()
    view.wait_until_idle()
    assert view.value("#flops .this") == flops and view.pixels() == before


def test_a_bad_file_is_one_sentence_and_nothing_else(view, tmp_path):
    before = view.pixels()
    path = tmp_path / "hamlet.txt"
    path.write_text("To be, or not to be")
    view.open(path)
    assert view.message.startswith("hamlet.txt is no readable image")
    assert "\n" not in view.message and view.pixels() == before
    view.find("#examples button").click()
    view.wait(lambda: not view.message, "the sentence stays")
    view.wait_until_idle()
    assert view.pixels() != before


def test_the_camera(view):
    before = view.pixels()
    view.find("#camera").click()
    view.wait(lambda: view.find("#take").is_displayed(), "no camera")
    view.find("#take").click()
    view.wait(lambda: view.find("#canvas").is_displayed(), "no picture")
    view.wait_until_idle()
    assert view.pixels() != before and not view.message
    assert not view.find("#video").is_displayed()


def test_maps_of_blocks_and_how_strongly_they_are_drawn(view):
    before = view.pixels()
    view.driver.execute_script(
        "const which = document.getElementById('which'); which.value = 'block1';"
        "which.dispatchEvent(new Event('change'))"
    )
    assert view.find("#low").text == "2.0" and view.pixels() != before
    drawn = view.pixels()
    view.driver.execute_script(
        "const opacity = document.getElementById('opacity'); opacity.value = 0;"
        "opacity.dispatchEvent(new Event('input'))"
    )
    assert view.pixels() != drawn


def test_a_phone_needs_no_scrolling_sideways(view):
    # Windows are not that narrow; devices are.
    width, height = PHONE
    view.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True},
    )
    assert view.width_needed() <= width
    # Slider and picture are seen together.
    bottom = view.driver.execute_script(
        "return document.getElementById('bias').getBoundingClientRect().bottom"
    )
    assert bottom < height
