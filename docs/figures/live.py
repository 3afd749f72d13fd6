"""Takes the pictures of docs/live.md: the page in a browser, at two widths.

    python docs/figures/live.py cifar.keras --labels labels.txt --examples photographs/

Takes what `sact-tf live` takes. Needs selenium, and Debian's chromium and
chromium-driver.
"""

import pathlib
import shutil
import subprocess
import sys
import time

from selenium import webdriver

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
#: Name, width and height of the window, pixels of the screen for one of the page.
VIEWS = {"live_desktop": (1160, 880, 1), "live_phone": (390, 844, 2)}
BIAS = 1.0


def main() -> None:
    """Serves, looks, and ends the server."""
    command = [sys.executable, "-m", "tools.live", *sys.argv[1:], "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        try:
            lines = iter(run.stdout.readline, "")
            url = next(line.split()[0] for line in lines if line.startswith("http"))
            for name, view in VIEWS.items():
                take(url, IMAGES / f"{name}.png", *view)
        finally:
            run.terminate()


def take(url, path, width, height, density):
    """A picture of the page with the first example, the slider moved."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        metrics = {"width": width, "height": height, "deviceScaleFactor": density}
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**metrics, "mobile": width < 500}
        )
        driver.get(url)
        wait(driver)
        driver.execute_script(
            "const slider = document.getElementById('bias');"
            f"slider.value = {BIAS}; slider.dispatchEvent(new Event('input'))"
        )
        wait(driver)
        driver.execute_script("window.dispatchEvent(new Event('resize'))")
        driver.save_screenshot(str(path))
        print(path)
    finally:
        driver.quit()


def wait(driver):
    """Until the page has its answer and its times."""
    end = time.monotonic() + 120
    body = driver.find_element("css selector", "body")
    while body.get_attribute("data-state") != "idle":
        if time.monotonic() > end:
            raise TimeoutError(driver.find_element("css selector", "#message").text)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
