"""The page in a real browser: Debian's packages chromium and chromium-driver, headless."""

import importlib.util
import os
import shutil
import time

import pytest

from detfeed import AnchorGrid, ShortSide, write_report
from detfeed.report import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
# As root Chromium needs --no-sandbox; the others keep it from looking for updates.
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
BOX = [10, 10, 30, 30]

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"),
    pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason="selenium is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("vl_convert") is None, reason="vl-convert-python is not installed"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def library():
    return page.chart_library()


@pytest.fixture
def show(browser, library, tmp_path):
    """Open a page from its file, on a screen of some width, and wait until its charts are drawn."""

    def call(*data, width=1400, scheme="light", **arguments):
        out = tmp_path / "page.html"
        write_report(out, *data, **{"resize": ShortSide(120), "anchors": AnchorGrid.c4(sizes=(32,)), **arguments})
        browser.get("about:blank")
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        browser.get(out.as_uri())
        wait(lambda: browser.execute_script("return document.documentElement.dataset.drawn"))
        return browser

    return call


def wait(ready):
    deadline = time.monotonic() + 60
    while not (answer := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


def js(browser, code, *arguments):
    return browser.execute_script(code, *arguments)


def in_sight(browser):
    """Scroll to the gallery; its pictures are drawn when they come into sight."""
    js(browser, "document.querySelector('#fed').scrollIntoView({block: 'center'})")
    wait(lambda: js(browser, "return document.querySelector('#fed svg .layer-truth')"))


def is_seen(browser, layer):
    return js(
        browser,
        "const one = document.querySelector(`#fed .layer-${arguments[0]}`);"
        "return one.getBoundingClientRect().width > 0 && getComputedStyle(one).display !== 'none'",
        layer,
    )


@pytest.fixture
def data(make_set, make_run, hostile):
    """Training and validation data and a run, with hostile names."""
    train = make_set(
        [[(1, BOX), (2, [5, 6, 0, 10]), (3, [40, 20, 30, 30])], [(2, BOX)], []],
        name="train",
        class_names=hostile,
        crowds={(0, (40, 20, 30, 30))},
    )
    val = make_set([[(1, BOX)], [(2, BOX)]], name="val", class_names=hostile)
    return train, val, make_run(val(), [[([10, 10, 40, 40], 0.75, 0)], [([10, 10, 40, 40], 0.5, 2)]])


def test_a_page_opens_from_its_file_without_an_error_or_a_request(show, data):
    train, val, run = data
    browser = show(train, val, run=run, num_timed=1, title="</script><b>title")
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    requests = [
        entry["message"] for entry in browser.get_log("performance") if "Network.requestWillBeSent" in entry["message"]
    ]
    assert [
        one for one in requests if '"url":"file:' not in one and '"url":"data:' not in one and '"url":"blob:' not in one
    ] == []
    charts = js(browser, "return document.querySelectorAll('[data-chart]').length")
    assert js(browser, "return document.querySelectorAll('[data-chart] svg').length") == charts > 8
    assert browser.title == "</script><b>title"  # and nothing that a name smuggled in
    assert js(browser, "return document.querySelectorAll('main b').length > 0")


def test_layers_are_switched_from_the_keyboard(show, data):
    from selenium.webdriver.common.keys import Keys

    browser = show(data[0])
    in_sight(browser)
    for layer in ("truth", "positives", "negatives", "ignored"):
        assert is_seen(browser, layer)
        (box,) = browser.find_elements("css selector", f"[data-layer={layer}]")
        box.send_keys(Keys.SPACE)
        assert not is_seen(browser, layer)
        box.send_keys(Keys.SPACE)
        assert is_seen(browser, layer)


def test_values_are_shown_of_what_lies_under_the_pointer_and_is_switched_on(show, data, hostile):
    from selenium.webdriver import ActionChains

    browser = show(data[0])
    in_sight(browser)
    for box in browser.find_elements("css selector", "[data-layer]:not([data-layer=truth])"):
        box.click()
    (target,) = browser.find_elements("css selector", "#fed .layer-truth g:last-child .line")
    label = js(browser, "return JSON.parse(document.getElementById('data').textContent).pictures")
    ActionChains(browser).move_to_element(target).perform()
    (tip,) = browser.find_elements("css selector", "#tip")
    assert tip.is_displayed()
    texts = [shape["text"] for one in label for shape in one["layers"].get("truth", [])]
    assert tip.text.split("\n")[0] in texts
    for box in browser.find_elements("css selector", "[data-layer=truth]"):
        box.click()
    ActionChains(browser).move_by_offset(1, 1).perform()
    assert not tip.is_displayed()


def test_pictures_are_enlarged_and_paged_through_from_the_keyboard(show, data):
    from selenium.webdriver.common.keys import Keys

    browser = show(data[0])
    buttons = wait(lambda: browser.find_elements("css selector", "#fed button"))
    titles = [js(browser, "return arguments[0].getAttribute('aria-label')", one) for one in buttons]
    buttons[0].send_keys(Keys.ENTER)
    (dialog,) = browser.find_elements("css selector", "dialog")
    assert dialog.is_displayed()
    shown = [dialog.find_element("css selector", "h3").text]
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT):
        browser.switch_to.active_element.send_keys(key)
        shown.append(dialog.find_element("css selector", "h3").text)
    assert [f"enlarge {title}" for title in shown] == [titles[0], titles[1], titles[2], titles[1]]
    assert len(dialog.find_elements("css selector", "li")) > 0
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()


def test_weak_detections_are_hidden_by_the_score(show, data):
    train, val, run = data
    browser = show(train, val, run=run)
    count = (
        "return [...document.querySelectorAll('[data-score]')]"
        ".filter(one => getComputedStyle(one).display !== 'none').length"
    )
    in_sight(browser)
    before = wait(lambda: js(browser, count))
    js(
        browser,
        "const score = document.getElementById('score'); score.value = 0.99;score.dispatchEvent(new Event('input'))",
    )
    assert before > 0
    assert js(browser, count) == 0


def test_pictures_are_chosen_by_class_and_ordered(show, make_set):
    browser = show(make_set([[(1, BOX)], [(1, BOX), (1, [50, 10, 20, 20])], [(2, BOX)]]))
    choose = (
        "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('change'));"
        "return [...document.querySelectorAll('#fed figcaption b')].map(one => one.textContent)"
    )
    assert js(browser, choose, "choose-class", "1") == ["train: image 2"]
    assert js(browser, choose, "choose-class", "0") == ["train: image 0", "train: image 1"]
    assert js(browser, choose, "choose-order", "objects") == ["train: image 1", "train: image 0"]


@pytest.mark.parametrize("width", [390, 1400])
def test_a_page_fits_the_screen_in_light_and_dark(show, data, width):
    train, val, run = data
    papers = []
    browser = show(train, val, run=run, width=width, scheme="dark")
    for _ in range(3):  # the system's, light, dark
        assert js(browser, "return document.documentElement.scrollWidth") <= width
        papers.append(js(browser, "return getComputedStyle(document.body).backgroundColor"))
        js(browser, "document.getElementById('theme').click()")
    assert papers[0] == papers[2] != papers[1]
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(os.path.join(folder, f"{width}.png"))
