"The widget without a server: what travels, what is left without a kernel, and how it plays as a page of its own"
import gzip
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("anywidget", reason='pip install "audio2pose[lab]"')
from audio2pose.show import player
from audio2pose.show import widget # noqa: E402
from audio2pose.core import InputError # noqa: E402
from audio2pose.motion import Motion # noqa: E402

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
SOFTWARE_GL = ("--headless --no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --autoplay-policy=no-user-gesture-required").split()


def wild(seconds=2., fps=60, seed=0):
    rng = np.random.default_rng(seed)
    count = round(seconds*fps)
    return Motion(rng.uniform(-3, 3, (count, 24, 3)), np.cumsum(rng.normal(0, .01, (count, 3)), 0)+[0, .95, 0], fps)


def tone(seconds=2.): return .1*np.sin(2*np.pi*330*np.arange(round(22_050*seconds))/22_050),22_050


# ---- what travels

@pytest.mark.parametrize("frames", [1, 2, 120])
def test_differences_are_lossless(frames):
    poses = np.random.default_rng(frames).integers(-32768, 32768, (frames, 24, 3)).astype("<i2")
    low,high = np.frombuffer(widget.difference_bytes(poses.tobytes(), frames), np.uint8).astype(np.int64).reshape(2, 72, frames)
    assert np.array_equal((low+256*high).cumsum(1).astype(np.int16).T.reshape(poses.shape), poses)


def test_a_pack_can_be_unpacked():
    data = dict(a=[b"x"*5, {"b": b"yz"}], c="text", d=None, e=b"")
    whole = gzip.decompress(widget.pack(data))
    size = int.from_bytes(whole[:4], "little")
    header,rest = json.loads(whole[4:4+size]),whole[4+size:]
    part = lambda place: rest[place["part"][0]:sum(place["part"])]
    assert part(header["a"][0])==b"x"*5 and part(header["a"][1]["b"])==b"yz" and part(header["e"])==b"" and header["c"]=="text" and header["d"] is None


def test_same_scene_same_bytes():
    assert widget.scene_bytes(wild())==widget.scene_bytes(wild())


def test_player_shows_the_way():
    assert player.Dancer is widget.Dancer
    with pytest.raises(AttributeError, match="Danser"): player.Danser


# ---- state

def test_state_is_checked():
    dancer = widget.Dancer(wild())
    for name,value in (("region", (3, 1)), ("region", (1,)), ("rate", 0), ("rate", 100.)):
        with pytest.raises(InputError): setattr(dancer, name, value)
    with pytest.raises(InputError, match="not finite"): widget.Dancer(Motion(np.full((3, 24, 3), np.nan), np.zeros((3, 3))))
    with pytest.raises(InputError, match="no frames"): widget.Dancer(wild()[:0])
    with pytest.raises(InputError, match="nobody"): widget.Dancer([])
    with pytest.raises(InputError, match="names"): widget.Dancer([wild()], names=["a", "b"])


def test_another_dance_in_the_same_cell_starts_anew():
    dancer = widget.Dancer(wild(), tone())
    before = dancer.scene
    dancer.time,dancer.region = 1.,(0, 1)
    dancer.show(wild(seed=1))
    assert dancer.time==0 and dancer.region==[] and dancer.scene!=before


# ---- without a kernel

@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install "audio2pose[dev]"')
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)
        yield opened
        opened.close()


def test_what_is_left(monkeypatch):
    monkeypatch.delenv("AUDIO2POSE_STILLS", raising=False)
    data,_ = widget.Dancer(wild(), tone(), title="<b>&\"")._repr_mimebundle_()
    assert set(data)=={"application/vnd.jupyter.widget-view+json", "text/plain", "text/html", "image/jpeg"}
    assert '<img alt="A dancer" src="data:image/jpeg;base64,' in data["text/html"] and "<b>&" not in data["text/html"]
    assert len(data["text/html"])<700_000
    monkeypatch.setenv("AUDIO2POSE_STILLS", "1")
    data,_ = widget.Dancer(wild())._repr_mimebundle_()
    assert set(data)=={"text/plain", "image/jpeg"}


def test_ten_minutes_are_saved_as_an_excerpt():
    long = Motion(np.zeros((36_000, 24, 3)), np.zeros((36_000, 3)))
    assert len(widget.excerpt_page(long, tone(30.), None, "", []))<600_000


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_static_export_plays(browser, tmp_path, monkeypatch, scheme):
    "Run, export with nbconvert, open without kernel and network: she dances"
    from nbconvert.exporters import HTMLExporter
    from nbformat import v4
    monkeypatch.delenv("AUDIO2POSE_STILLS", raising=False)
    data,_ = widget.Dancer([wild(3.), wild(2., 30)], tone(1.), names=["a", "b"])._repr_mimebundle_()
    cell = v4.new_code_cell("dancer", outputs=[v4.new_output("display_data", data=data)])
    text,_ = HTMLExporter(template_name="basic").from_notebook_node(v4.new_notebook(cells=[cell]))
    (tmp_path/"export.html").write_text(text, encoding="utf-8")
    with browser.new_context(color_scheme=scheme, viewport=dict(width=480, height=640)) as context:
        context.set_offline(True)
        page = context.new_page()
        page.goto((tmp_path/"export.html").as_uri())
        frame = page.wait_for_selector("iframe").content_frame()
        frame.wait_for_function("window.player?.drawn > 0")
        assert frame.evaluate("[player.dances.length, player.length]")==[2, 3]
        restored = frame.evaluate("[...player.dances[0].poses.slice(72*100, 72*100 + 6)]")
        assert np.allclose(restored, player.quantised_poses(wild(3.).poses)[100].ravel()[:6], atol=1)
        frame.evaluate("player.play()")
        frame.wait_for_function("player.time > 1.3") # Beyond the song


@needs_browser
def test_a_part_is_looped_and_a_silent_device_does_not_stop_her(browser, tmp_path):
    import soundfile
    soundfile.write(tmp_path/"tone.wav", *tone(6.))
    player.write_html(wild(6.), tmp_path/"page.html", tmp_path/"tone.wav")
    with browser.new_context(viewport=dict(width=900, height=500)) as context:
        page = context.new_page()
        page.add_init_script("HTMLMediaElement.prototype.play = () => Promise.resolve()") # Says that it plays, and never moves
        page.goto((tmp_path/"page.html").as_uri())
        page.wait_for_function("window.player?.ready")
        page.evaluate("player.play()")
        page.wait_for_function("player.time > .5", timeout=20_000)
        assert "device" in page.inner_text(".note")
        page.evaluate("player.mark(1, 1.4)")
        page.wait_for_function("player.time >= 1 && player.time < 1.4")
        box = page.locator("input[type=range]").bounding_box()
        page.keyboard.down("Shift")
        page.mouse.move(box["x"]+box["width"]*.5, box["y"]+10)
        page.mouse.down()
        page.mouse.move(box["x"]+box["width"]*.75, box["y"]+10, steps=3)
        page.mouse.up()
        page.keyboard.up("Shift")
        assert page.evaluate("player.region")==pytest.approx([3, 4.5], abs=.2)
        page.keyboard.press("Escape")
        assert page.evaluate("player.region") is None
