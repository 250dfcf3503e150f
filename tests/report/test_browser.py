"""The page in a real browser: Debian's packages chromium and chromium-driver, headless."""

import importlib.util
import json
import shutil
import time

import pytest

from detfeed import AnchorGrid, ShortSide, write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
# As root Chromium needs --no-sandbox; the others keep it from looking for updates.
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
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
def page(browser, tmp_path_factory, write_set, write_run, hostile):
    """A page with all that one can have, and hostile names, opened from its file. Loading it takes longest."""
    folder = tmp_path_factory.mktemp("page")
    images = [[(1, BOX), (2, [5, 6, 0, 10]), (3, [40, 20, 30, 30])], [(1, BOX), (2, BOX)], [(2, BOX)]]
    crowds = {(0, (40, 20, 30, 30))}
    train = write_set(folder / "train", images, class_names=hostile, crowds=crowds)
    val = write_set(folder / "val", [[(1, BOX)], [(2, BOX)]], class_names=hostile)  # the first two images again
    found = [[([10, 10, 40, 40], 0.75, 0)], [([10, 10, 40, 40], 0.5, 2)]]
    run = write_run(folder / "run", val(), found)
    out = folder / "page.html"
    write_report(
        out,
        train,
        val,
        resize=ShortSide(120),
        anchors=AnchorGrid.c4(sizes=(32,)),
        run=run,
        num_timed=1,
        title="</script><b>title",
    )
    set_screen(browser, 1400, "light")
    browser.get("about:blank")
    browser.get_log("performance")  # of the browser's own start page
    browser.get(out.as_uri())
    wait(lambda: js(browser, "return document.documentElement.dataset.drawn"))
    return browser


@pytest.fixture
def gallery(page):
    """The page at its gallery; pictures are drawn when they come into sight."""
    js(page, "document.querySelector('#fed').scrollIntoView({block: 'start'})")
    wait(lambda: js(page, "return document.querySelector('#fed .layer-detections')"))
    return page


def set_screen(browser, width, scheme):
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def wait(ready):
    deadline = time.monotonic() + 60
    while not (answer := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


def js(browser, code, *arguments):
    return browser.execute_script(code, *arguments)


def is_seen(browser, layer):
    return js(
        browser,
        "const one = document.querySelector(`#fed .layer-${arguments[0]}`);"
        "return one.getBoundingClientRect().width > 0 && getComputedStyle(one).display !== 'none'",
        layer,
    )


def point_at(browser, selector):
    """Move the pointer to the middle of the first element that is found."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    middle = (
        "const {x, y, width, height} = document.querySelector(arguments[0]).getBoundingClientRect();"
        "return [Math.round(x + width / 2), Math.round(y + height / 2)]"
    )
    actions = ActionBuilder(browser)
    actions.pointer_action.move_to_location(*js(browser, middle, selector))
    actions.perform()


def errors(browser):
    """What the page said on the console since it was asked before."""
    return [entry["message"] for entry in browser.get_log("browser")]


def test_a_page_opens_from_its_file_without_an_error_or_a_request(page):
    assert errors(page) == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert {url.partition(":")[0] for url in urls if not url.endswith("/page.html")} <= {"data", "blob"}
    assert any(url.endswith("/page.html") for url in urls)
    charts = js(page, "return document.querySelectorAll('[data-chart]').length")
    assert js(page, "return document.querySelectorAll('[data-chart] svg').length") == charts > 12


def test_hostile_names_are_text(page, hostile):
    assert page.title == "</script><b>title"  # and not what a name smuggled in
    labels = js(page, "return [...document.querySelectorAll('#choose-class option')].map(one => one.textContent)")
    assert labels[1] == hostile[0]
    assert labels[3] == hostile[2]
    assert js(page, "return document.querySelectorAll('main script, main img[src=x]').length") == 0


def test_layers_are_switched_from_the_keyboard(gallery):
    for layer in ("truth", "positives", "negatives", "ignored", "detections"):
        assert is_seen(gallery, layer)
        box = gallery.find_element("css selector", f"[data-layer={layer}]")
        box.send_keys(" ")
        assert not is_seen(gallery, layer)
        box.send_keys(" ")
        assert is_seen(gallery, layer)


def test_values_are_shown_of_what_is_under_the_pointer_and_switched_on(gallery):
    boxes = {box.get_attribute("data-layer"): box for box in gallery.find_elements("css selector", "[data-layer]")}
    others = [box for layer, box in boxes.items() if layer != "truth"]
    for box in others:
        box.click()
    point_at(gallery, "#fed .layer-truth g:last-child .line")
    tip = gallery.find_element("css selector", "#tip")
    assert tip.is_displayed()
    pictures = js(gallery, "return JSON.parse(document.getElementById('data').textContent).pictures")
    assert tip.text.split("\n")[0] in [shape["text"] for one in pictures for shape in one["layers"].get("truth", [])]
    assert gallery.find_elements("css selector", "#fed .layer-truth .hot")
    boxes["truth"].click()
    point_at(gallery, "#fed .frame")
    assert not tip.is_displayed()
    for box in boxes.values():
        box.click()


def test_pictures_are_enlarged_and_paged_through_from_the_keyboard(gallery):
    from selenium.webdriver.common.keys import Keys

    buttons = gallery.find_elements("css selector", "#fed button")
    titles = [button.get_attribute("aria-label") for button in buttons]
    buttons[0].send_keys(Keys.ENTER)
    dialog = gallery.find_element("css selector", "dialog")
    assert dialog.is_displayed()
    shown = [dialog.find_element("css selector", "h3").text]
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT):
        gallery.switch_to.active_element.send_keys(key)
        shown.append(dialog.find_element("css selector", "h3").text)
    assert [f"enlarge {title}" for title in shown] == [titles[0], titles[1], titles[2], titles[1]]
    assert dialog.find_elements("css selector", "li")
    gallery.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()


def test_weak_detections_are_hidden_by_the_score(gallery):
    set_score = (
        "const score = document.getElementById('score'); score.value = arguments[0];"
        "score.dispatchEvent(new Event('input'));"
        "return [...document.querySelectorAll('#fed [data-score]')]"
        ".filter(one => getComputedStyle(one).display !== 'none').length"
    )
    assert js(gallery, set_score, "0.99") == 0
    assert js(gallery, set_score, "0") > 0


def test_pictures_are_chosen_by_class_and_data_and_ordered(gallery):
    choose = (
        "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('change'));"
        "return [...document.querySelectorAll('#fed figcaption b')].map(one => one.textContent)"
    )
    all_train = [f"train: image {number}" for number in range(3)]
    assert js(gallery, choose, "choose-data", "train") == all_train
    assert js(gallery, choose, "choose-class", "2") == ["train: image 0"]
    assert js(gallery, choose, "choose-class", "0") == all_train[:2]
    assert js(gallery, choose, "choose-order", "objects") == ["train: image 1", "train: image 0"]
    for name in ("choose-order", "choose-class", "choose-data"):
        js(gallery, choose, name, "")


@pytest.mark.parametrize("width", [390, 1400])
def test_a_page_fits_the_screen_in_light_and_dark(page, width):
    set_screen(page, width, "dark")
    papers = []
    for _ in range(3):  # the system's, light, dark
        assert js(page, "return document.documentElement.scrollWidth") <= width
        papers.append(js(page, "return getComputedStyle(document.body).backgroundColor"))
        page.find_element("css selector", "#theme").click()
    assert papers[0] == papers[2] != papers[1]
    assert errors(page) == []
