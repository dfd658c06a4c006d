"The comparison page in Chromium without a network: votes by keyboard and by touch, their file, its ranking"
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from audio2pose.cli import run
from audio2pose.metrics.preference import ranking, read_votes
from audio2pose.motion import Motion

pytest.importorskip("anywidget", reason='pip install "audio2pose[lab]"')
from audio2pose.show.compare import all_pairs, blind_names, compare_page, study_data # noqa: E402

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --autoplay-policy=no-user-gesture-required".split()
AXE = os.environ.get("AXE", "")
SMALL = dict(width=480, height=360) # A processor draws every pixel
NAMES = blind_names(["one", "two", "three"], 5)


def restless(seed, seconds=10.): # Random poses hold the most bytes a dance can
    rng,count = np.random.default_rng(seed),round(seconds*60)
    return Motion(rng.uniform(-1, 1, (count, 24, 3)), np.cumsum(rng.normal(0, .003, (count, 3)), 0)*[1, 0, 1]+[0, .95, 0])

def noise(seed, seconds=10.): return .1*np.random.default_rng(seed).standard_normal(round(22_050*seconds)),22_050,np.arange(0, seconds, .5)

@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    "Three dancers on two songs: six pairs"
    dances = {song: {name: restless(7*k+i, 3.) for k,name in enumerate(NAMES)} for i,song in enumerate(("a", "b"))}
    page = compare_page(study_data(dances, {"a": noise(1, 3.), "b": noise(2, 3.)}, all_pairs(dances), NAMES))
    path = tmp_path_factory.mktemp("study")/"compare.html"
    path.write_text(page, encoding="utf-8")
    (path.parent/"key.json").write_text(json.dumps(dict(dancers={code: name for name,code in NAMES.items()})))
    return path

@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install "audio2pose[dev]"')
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()

@pytest.fixture
def opened(browser, page_file):
    "Opens the page without a network; what goes wrong in it, or asks for one, fails the test"
    contexts,wrong = [],[]
    def start(**options):
        context = browser.new_context(accept_downloads=True, **options)
        context.set_offline(True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(("file:", "blob:", "data:")) else wrong.append(asked.url))
        page.goto(page_file.as_uri())
        page.wait_for_function("window.ballot && window.player?.drawn > 0")
        return page
    yield start
    for context in contexts: context.close()
    assert wrong==[]

def saved(page, act):
    with page.expect_download() as waiting: act()
    return Path(waiting.value.path())

def test_twenty_pairs_are_small():
    "Twenty songs, and dances that cannot be packed"
    dances = {f"song {k}": {name: restless(3*k+i) for i,name in enumerate(("one", "two"))} for k in range(20)}
    page = compare_page(study_data(dances, {song: noise(k) for k,song in enumerate(dances)}, all_pairs(dances), NAMES))
    assert page.count("http://")+page.count("https://")==page.count("http://www.w3.org/")
    assert len(page.encode())<10e6

@needs_browser
def test_votes_by_keyboard(opened, page_file, capsys):
    page = opened(viewport=SMALL)
    assert page.inner_text(".progress")=="1 of 6"
    first = page.evaluate("ballot.pair.dancers")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".progress")=="3 of 6"
    page.keyboard.press("u")
    assert page.inner_text(".progress")=="2 of 6"
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowLeft", "ArrowLeft"): page.keyboard.press(key)
    assert page.inner_text(".progress").startswith("Done: 6 votes")
    file = saved(page, lambda: page.keyboard.press("s"))
    votes = json.loads(file.read_text())["votes"]
    assert [vote["choice"] for vote in votes]==["left", "right", "tie", "left", "left", "left"]
    assert [votes[0]["left"], votes[0]["right"]]==first and all(vote["seconds"]>=0 and vote["time"][:2]=="20" for vote in votes)
    assert {frozenset((vote["left"], vote["right"], vote["song"])) for vote in votes}=={frozenset((NAMES[a], NAMES[b], song)) for song in "ab" for a,b in (("one", "two"), ("one", "three"), ("two", "three"))}
    read = read_votes(file)
    assert len(read)==6 and read[0]==(*first, 1.) and read[2][2]==.5
    assert {row["name"] for row in ranking(read)}=={*NAMES.values()}
    assert run(["compare", "--votes", str(file), "--out", str(page_file.parent)])==0
    said = capsys.readouterr().out
    assert all(name in said for name in NAMES) and "votes between the two" in said

@needs_browser
def test_votes_by_touch_on_a_phone(opened):
    page = opened(viewport=dict(width=390, height=844), has_touch=True, is_mobile=True)
    boxes = [page.locator(f".ballot .{name}").bounding_box() for name in ("left", "tie", "right", "back", "save")]
    assert all(box["height"]>=44 and box["x"]>=0 and box["x"]+box["width"]<=390 and box["y"]+box["height"]<=844 for box in boxes)
    controls,ballot = page.locator(".a2p .controls").bounding_box(),page.locator(".ballot").bounding_box()
    assert controls["y"]+controls["height"]<=ballot["y"] # Nothing lies under the ballot
    for name in ("right", "tie", "left"): page.tap(f".ballot .{name}")
    file = saved(page, lambda: page.tap(".ballot .save"))
    assert [vote["choice"] for vote in json.loads(file.read_text())["votes"]]==["right", "tie", "left"] and len(read_votes(file))==3

@needs_browser
def test_order_and_sides_are_drawn_anew(opened):
    orders = {json.dumps(opened(viewport=SMALL).evaluate("ballot.pairs")) for _ in range(3)}
    assert len(orders)>1
    shown = [json.loads(order) for order in orders]
    assert len({json.dumps(sorted((pair["song"], *sorted(pair["dancers"])) for pair in pairs)) for pairs in shown})==1
    assert not any(name in json.dumps(shown) for name in NAMES)

@needs_browser
@pytest.mark.skipif(not Path(AXE).is_file(), reason="no axe: npm install axe-core, and name axe.min.js in AXE")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_vote(opened, scheme):
    page = opened(color_scheme=scheme, bypass_csp=True)
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("window.player?.drawn > 0")
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] })")["violations"]
    assert found==[], [(one["id"], one["help"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]
