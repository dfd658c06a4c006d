"The page of a live dance in Chromium: the dancer moves, style and energy change, and everybody can use it"
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("anywidget", reason='pip install "audio2pose[lab]"')
from audio2pose.commands.live import LiveServer, fill_stalls, live_page, song_chunks, throttle # noqa: E402
from audio2pose.core import SR # noqa: E402
from audio2pose.live import LiveDancer, LiveStream # noqa: E402
from audio2pose.models.motion_flow import MotionFlow # noqa: E402

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --autoplay-policy=no-user-gesture-required".split()
AXE = os.environ.get("AXE", "")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install "audio2pose[dev]"')
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()

@pytest.fixture
def server():
    "A minute of noise, as it would sound"
    stream = LiveStream(LiveDancer(MotionFlow.from_pretrained(), seed=1))
    sound = (.1*np.random.default_rng(0).standard_normal(60*SR)).astype(np.float32)
    server = LiveServer(stream, throttle(fill_stalls(song_chunks(sound))), live_page("A <live> dance", False, stream))
    threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=.05), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()

@pytest.fixture
def opened(browser, server):
    "Opens the page; what goes wrong in it, or asks anybody else, fails the test"
    contexts,wrong = [],[]
    def start(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith((server.url, "blob:", "data:")) else wrong.append(asked.url))
        page.goto(server.url)
        page.wait_for_function("window.live")
        return page
    yield start
    for context in contexts: context.close()
    assert wrong==[]

def hands(page): return np.array(page.evaluate("[20, 21, 22, 23].map(joint => live.dance.show(live.place).positions[joint])"))

def test_dancer_moves_and_obeys(opened, server):
    page = opened(viewport=dict(width=900, height=700))
    assert page.inner_text("h1")=="A <live> dance" and not server.begun
    page.click(".start")
    page.wait_for_function("live.dance.end > 60 && live.place")
    before,end = hands(page),page.evaluate("live.dance.end")
    page.wait_for_function("end => live.dance.end > end + 60 && live.place > end", arg=end)
    assert np.abs(hands(page)-before).max()>.02
    assert "bpm" in page.inner_text(".ballot .progress") and page.is_disabled(".start")
    page.select_option("select", "salsa")
    page.wait_for_function("document.querySelector('.note').textContent.startsWith('Heard')")
    assert server.stream.dancer.style=="salsa"
    page.focus("input[type=range]")
    for _ in range(4): page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert server.stream.base==pytest.approx(1.2)
    page.select_option("select", "")
    page.wait_for_timeout(300)
    assert server.stream.dancer.style is None and server.error is None

def test_a_phone_shows_all_of_it(opened):
    page = opened(viewport=dict(width=390, height=844), has_touch=True, is_mobile=True)
    boxes = [page.locator(f".ballot {name}").bounding_box() for name in (".start", "select", "input")]
    assert all(box["height"]>=44 and box["x"]>=0 and box["x"]+box["width"]<=390 and box["y"]+box["height"]<=844 for box in boxes), boxes
    stage,ballot = page.locator(".stage").bounding_box(),page.locator(".ballot").bounding_box()
    assert stage["y"]+stage["height"]<=ballot["y"]+1
    page.tap(".start")
    page.wait_for_function("live.dance.end > 0")

@pytest.mark.skipif(not Path(AXE).is_file(), reason="no axe: npm install axe-core, and name axe.min.js in AXE")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(opened, scheme):
    page = opened(color_scheme=scheme, bypass_csp=True)
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] })")["violations"]
    assert found==[], [(one["id"], one["help"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]
