"The page in a real browser: Debian's Chromium, without a screen, a GPU or a network"
import io
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from audio2pose.cli import run
from audio2pose.show import player
from audio2pose.core import InputError
from audio2pose.motion import Motion

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
         "--disable-sync --autoplay-policy=no-user-gesture-required").split()
SOFTWARE_GL = "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader".split()
AXE = Path(os.environ.get("AXE", ""))


def needs_browser(test): return pytest.mark.browser(pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")(test))


# ---- what is shown

def swaying(seconds=8.):
    "Arms that rise and a body that walks sideways: no two frames look alike"
    time = np.arange(round(60*seconds))/60
    poses = np.zeros((len(time), 24, 3))
    poses[:, 16, 2] = np.linspace(-1.3, 1.2, len(time))
    poses[:, 17, 2] = np.linspace(1.3, -1.2, len(time))
    return Motion(poses, np.stack([.1*time, .95+0*time, 0*time], 1))


@pytest.fixture(scope="session")
def song(tmp_path_factory):
    "Five seconds of a tone, in a file with an awkward name"
    import soundfile
    path = tmp_path_factory.mktemp("songs")/"it's \"loud\" & <b>bold<script>window.hacked=1<script>.wav"
    soundfile.write(path, .1*np.sin(2*np.pi*330*np.arange(5*44_100)/44_100), 44_100, format="WAV")
    return path


@pytest.fixture(scope="session")
def page_file(tmp_path_factory, song):
    path = tmp_path_factory.mktemp("pages")/"dance.html"
    player.write_html(swaying(), path, song, beats=np.arange(0, 8, .5))
    return path


# ---- a browser

@pytest.fixture(scope="module")
def launch():
    "Starts a browser with further flags"
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install "audio2pose[dev]"')
    with sync_api.sync_playwright() as playwright:
        yield lambda flags: playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS+flags)


@pytest.fixture(scope="module")
def browser(launch):
    opened = launch(SOFTWARE_GL)
    yield opened
    opened.close()


def new_page(browser, **device):
    "A tab without a network"
    context = browser.new_context(**device)
    context.set_default_timeout(60_000)
    context.set_offline(True)
    context.route("http*://**", lambda route: route.abort())
    return context.new_page()


WINDOW,SMALL = dict(width=600, height=420),dict(width=320, height=240) # A processor draws every pixel: small where the test does not look
shared_tabs = {} # Browser and device → the tab in which pages follow each other: a process and its compiled code serve them all


@contextmanager
def visit(browser, path, script="", viewport=WINDOW, color_scheme="light", reduced_motion="no-preference", forced_colors="none", **device):
    "Open a page file anew; afterwards nothing may have gone wrong and nothing may have been fetched"
    tab,wrong,fetched,done = (browser, *sorted(device.items())), [], [], False
    page = shared_tabs.pop(tab, None) if not script else None # A prepared page has a tab of its own
    if page is None: page = new_page(browser, **device)
    listeners = dict(console=lambda message: wrong.append(message.text) if message.type=="error" else None,
                     pageerror=lambda error: wrong.append(str(error)), request=lambda request: fetched.append(request.url))
    try:
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=color_scheme, reduced_motion=reduced_motion, forced_colors=forced_colors)
        for event,listener in listeners.items(): page.on(event, listener)
        if script: page.add_init_script(script)
        page.goto(path.as_uri())
        page.wait_for_function("window.player?.ready")
        yield page
        assert wrong==[]
        assert [url for url in fetched if not url.startswith(("blob:", "data:"))]==[path.as_uri()]
        for event,listener in listeners.items(): page.remove_listener(event, listener)
        page.mouse.move(-1, -1)
        page.goto("about:blank")
        done = not script
    finally:
        if done: shared_tabs[tab] = page
        else: page.context.close()


def seen(page):
    "The dancer's canvas as an array, controls and title hidden"
    from PIL import Image
    page.evaluate("() => document.querySelectorAll('.controls, .tools, .title, .note').forEach(part => part.style.visibility = 'hidden')")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(float)


def frame(page): return page.evaluate("player.frame")


# ---- playing

@needs_browser
def test_it_plays_and_the_song_leads(browser, page_file):
    with visit(browser, page_file, viewport=SMALL) as page:
        assert frame(page)==0
        page.click(".play")
        page.wait_for_function("player.frame > 20")
        gaps = []
        for _ in range(20):
            gaps.append(page.evaluate("60*player.audio.currentTime - 60*player.time"))
            page.wait_for_timeout(50)
        assert np.abs(gaps).max()<6 and abs(np.median(gaps))<1.5, gaps
        assert page.evaluate("player.playing && !player.audio.paused && document.body.classList.contains('playing')")
        page.click(".play")
        resting = frame(page)
        page.wait_for_timeout(300)
        assert frame(page)==resting and not page.evaluate("player.playing") and page.evaluate("player.audio.paused")
        assert abs(page.evaluate("60*player.audio.currentTime")-resting)<6


@needs_browser
def test_a_seek_shows_the_frame_of_that_time(browser, page_file):
    with visit(browser, page_file, viewport=SMALL) as page:
        for time in (1.5, .008, 0, 1/60, 4.99, 6.2, 7.9):
            page.evaluate("time => player.seek(time)", time)
            page.wait_for_timeout(60)
            assert abs(frame(page)-round(60*time))<=1
            assert page.evaluate("player.time")==pytest.approx(time)


@needs_browser
def test_a_seek_while_playing_goes_on_from_there(browser, page_file):
    with visit(browser, page_file, viewport=SMALL) as page:
        page.evaluate("player.play()")
        page.wait_for_function("player.frame > 5")
        page.evaluate("player.seek(3)")
        assert 180<=frame(page)<200
        page.wait_for_function("player.frame > 200")
        assert page.evaluate("Math.abs(player.audio.currentTime - player.time)")<.1


@needs_browser
def test_seeking_beyond_either_end_stays_inside(browser, page_file):
    with visit(browser, page_file, viewport=SMALL) as page:
        page.evaluate("player.seek(-5)")
        assert frame(page)==0
        page.evaluate("player.seek(1e9)")
        assert frame(page)==479
        page.evaluate("player.seek(NaN)")
        assert frame(page)==0


@needs_browser
def test_it_dances_on_after_the_song_and_rests_at_the_end(browser, page_file):
    with visit(browser, page_file, viewport=SMALL) as page:
        page.evaluate("player.seek(4.6), player.play()")
        page.wait_for_function("player.frame > 330") # The song is over at 300
        page.evaluate("player.seek(7.8)")
        page.wait_for_function("!player.playing")
        assert frame(page)==479
        page.keyboard.press("Space") # Play at the end starts again
        page.wait_for_function("player.playing && player.frame < 100")


@needs_browser
def test_a_song_longer_than_the_dance_plays_to_its_end(browser, tmp_path, song):
    player.write_html(swaying(1.), tmp_path/"short.html", song)
    with visit(browser, tmp_path/"short.html", viewport=SMALL) as page:
        assert page.evaluate("player.length")==pytest.approx(5, abs=.01)
        page.evaluate("player.seek(4.5), player.play()")
        page.wait_for_function("player.time > 4.8")
        assert frame(page)==59


@needs_browser
def test_without_a_song_it_keeps_its_own_time(browser, tmp_path):
    player.write_html(swaying(), tmp_path/"silent.html", title="Silent")
    with visit(browser, tmp_path/"silent.html", viewport=SMALL) as page:
        page.evaluate("player.play()")
        start = page.evaluate("[player.time, performance.now()/1000]")
        page.wait_for_timeout(700)
        stop = page.evaluate("[player.time, performance.now()/1000]")
        assert stop[0]-start[0]==pytest.approx(stop[1]-start[1], abs=.03)
        assert page.is_hidden(".sound")


@needs_browser
def test_a_muted_tab_changes_nothing_but_the_sound(launch, page_file):
    muted = launch([*SOFTWARE_GL, "--mute-audio"])
    with visit(muted, page_file, viewport=SMALL) as page:
        page.evaluate("player.play()")
        page.wait_for_function("player.frame > 30")
        page.keyboard.press("m")
        page.wait_for_function("player.frame > 60")
        assert page.evaluate("player.audio.muted && player.playing && !player.audio.paused")
        assert page.evaluate("Math.abs(player.audio.currentTime - player.time)")<.3
        assert page.inner_text(".note")==""
    muted.close()


@needs_browser
def test_speed_and_loop(browser, tmp_path):
    player.write_html(swaying(1.), tmp_path/"short.html")
    with visit(browser, tmp_path/"short.html", viewport=SMALL) as page:
        page.select_option("select", "0.25")
        page.evaluate("player.play()")
        page.wait_for_timeout(600)
        assert .08<page.evaluate("player.time")<.3
        page.click(".loop")
        page.select_option("select", "2")
        page.evaluate("player.seek(.8)")
        page.wait_for_function("player.time < .5") # It came round
        assert page.evaluate("player.playing")


@needs_browser
def test_a_blocked_song_waits_for_a_click(browser, page_file):
    refuse = "HTMLMediaElement.prototype.play = () => Promise.reject(new DOMException('no gesture yet', 'NotAllowedError'))"
    with visit(browser, page_file, script=refuse, viewport=SMALL) as page:
        page.evaluate("player.play()")
        page.wait_for_timeout(100)
        assert not page.evaluate("player.playing") and frame(page)==0


@needs_browser
def test_a_song_that_cannot_be_decoded_is_said_and_danced_without(browser, tmp_path, song, monkeypatch):
    monkeypatch.setattr(player, "sound_data", lambda path: {"type": "audio/mpeg", "seconds": 5., "data": player.base64_text(b"noise"*99)})
    player.write_html(swaying(), tmp_path/"broken.html", song)
    with visit(browser, tmp_path/"broken.html", viewport=SMALL) as page:
        page.wait_for_function("document.querySelector('.note').textContent.includes('silence')")
        page.evaluate("player.play()")
        page.wait_for_function("player.frame > 10")


# ---- looking

@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_dancer_is_drawn(browser, page_file, scheme):
    with visit(browser, page_file, color_scheme=scheme) as page:
        first = seen(page)
        page.evaluate("player.seek(6)")
        later = seen(page)
        assert (first.mean()>128)==(scheme=="light")
        assert first.std()>4, "blank"
        middle = first[100:320, 200:400]
        assert np.abs(middle-np.median(first, axis=(0, 1))).sum(-1).max()>100, "nobody in the middle"
        moved = np.abs(later-first).sum(-1)>40
        assert .001<moved.mean()<.5, "another time, another pose"


@needs_browser
def test_seeking_back_gives_the_same_picture(browser, page_file):
    with visit(browser, page_file) as page:
        page.evaluate("player.seek(2)")
        before = seen(page)
        page.evaluate("player.seek(5)")
        page.evaluate("player.seek(2)")
        assert np.abs(seen(page)-before).max()<=2


@needs_browser
def test_drag_turns_and_wheel_zooms(browser, page_file):
    with visit(browser, page_file) as page:
        still = seen(page)
        page.mouse.move(300, 150)
        page.mouse.down()
        page.mouse.move(480, 190, steps=4)
        page.mouse.up()
        page.wait_for_timeout(600)
        turned = seen(page)
        page.mouse.wheel(0, 400)
        page.wait_for_timeout(600)
        assert np.abs(turned-still).sum(-1).max()>60
        assert np.abs(seen(page)-turned).sum(-1).max()>60
        assert not page.evaluate("player.playing"), "a drag is not a click"
        page.mouse.click(300, 150)
        page.wait_for_function("player.playing")


@needs_browser
@pytest.mark.parametrize("size", [(1600, 900), (390, 844), (320, 480), (844, 390)])
def test_it_fits_every_window(browser, page_file, size):
    with visit(browser, page_file) as page:
        page.set_viewport_size(dict(width=size[0], height=size[1]))
        page.wait_for_function("([w, h]) => { const c = document.querySelector('canvas'); return c.width === w && c.height === h }", arg=list(size))
        inside = page.evaluate("""() => [...document.querySelectorAll('.controls, .controls button, .controls select, .controls input')]
            .filter(part => part.offsetParent).every(part => { const box = part.getBoundingClientRect();
                return box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight })""")
        assert inside and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert seen(page).std()>4


@needs_browser
def test_without_webgl_there_is_a_stick_figure_and_a_sentence(launch, page_file):
    browser = launch(["--disable-3d-apis"])
    with visit(browser, page_file) as page:
        assert "WebGL" in page.inner_text(".note")
        first = seen(page)
        page.evaluate("player.seek(6)")
        assert np.abs(seen(page)-first).sum(-1).max()>100
    browser.close()


@needs_browser
def test_it_survives_a_lost_graphics_context(browser, page_file):
    with visit(browser, page_file) as page:
        before = seen(page)
        page.evaluate("() => { window.lose = document.querySelector('canvas').getContext('webgl2').getExtension('WEBGL_lose_context'); lose.loseContext() }")
        page.wait_for_timeout(100)
        page.evaluate("() => lose.restoreContext()")
        page.wait_for_timeout(500)
        assert np.abs(seen(page)-before).mean()<1


# ---- hands

@needs_browser
def test_the_keyboard(browser, page_file):
    with visit(browser, page_file, viewport=SMALL) as page:
        def after(key):
            page.keyboard.press(key)
            return frame(page)
        assert after("Shift+ArrowRight")==60
        assert after(".")==61
        assert after(",")==60
        assert after("PageUp")==360
        assert after("Shift+ArrowLeft")==300
        assert after("End")==479
        assert after("Home")==0
        page.focus("input") # On the time line arrows go along it
        assert after("ArrowRight")==60
        assert page.evaluate("player.camera.wanted.azimuth")==.38
        after(" ")
        page.wait_for_function("player.playing && player.frame > 65")
        after(" ")
        assert not page.evaluate("player.playing")
        for key,name in (("m", "sound"), ("l", "loop"), ("c", "follow")):
            before = page.get_attribute(f".{name}", "aria-pressed")
            after(key)
            assert page.get_attribute(f".{name}", "aria-pressed")!=before
        page.focus(".loop") # Space on a focused button presses that button, once
        before = page.get_attribute(".loop", "aria-pressed")
        after("Space")
        assert page.get_attribute(".loop", "aria-pressed")!=before and not page.evaluate("player.playing")


def turned(page):
    "Azimuth, elevation and zoom that the camera is on its way to"
    return page.evaluate("[player.camera.wanted.azimuth, player.camera.wanted.elevation, player.camera.wanted.zoom]")


@needs_browser
def test_the_camera_is_moved_by_keys(browser, page_file):
    with visit(browser, page_file, viewport=SMALL) as page:
        start = turned(page)
        for key,axis,sign in (("ArrowLeft", 0, -1), ("ArrowRight", 0, 1), ("ArrowUp", 1, 1), ("ArrowDown", 1, -1), ("+", 2, -1), ("=", 2, -1), ("-", 2, 1)):
            before = turned(page)
            page.keyboard.press(key)
            change = np.subtract(turned(page), before)
            assert change[axis]*sign>.02 and np.count_nonzero(change)==1, key
        assert frame(page)==0, "time is left alone"
        for _ in range(40): page.keyboard.press("ArrowUp")
        assert turned(page)[1]<=np.pi/2, "never over the top"
        page.keyboard.press("r")
        assert turned(page)==start
        page.keyboard.press("Control+ArrowLeft")
        assert turned(page)==start, "the browser's own keys stay the browser's"


@needs_browser
def test_views_from_the_front_the_side_and_the_top(browser, page_file):
    eye = "(() => { const { eye, target } = player.camera.view([0, 0, 0], 0, 1.5, 0); return eye.map((x, i) => x - target[i]) })()"
    with visit(browser, page_file, viewport=dict(width=1200, height=700), reduced_motion="reduce") as page:
        page.evaluate("player.camera.orbit(-20, 0)") # Three times round: the way to a view is the shorter one
        for key,name,axis in (("1", "front", 2), ("2", "side", 0), ("3", "top", 1)):
            before = turned(page)[0]
            page.keyboard.press(key)
            assert abs(turned(page)[0]-before)<=np.pi+1e-9
            page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            away = np.array(page.evaluate(eye))
            assert away[axis]/np.linalg.norm(away)>.99, name
            assert [page.get_attribute(f".{other}", "aria-pressed") for other in ("front", "side", "top")]==[str(other==name).lower() for other in ("front", "side", "top")]
        page.click(".front")
        assert turned(page)[1]==pytest.approx(.05)
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("document.querySelector('.front').getAttribute('aria-pressed') === 'false'")
        page.click(".home")
        assert turned(page)[:2]==[.38, .16]


@needs_browser
def test_bones_in_place_of_the_body(browser, page_file):
    "Fewer pixels than the body covers; what is left is red, what is right is blue"
    with visit(browser, page_file, reduced_motion="reduce") as page:
        page.keyboard.press("1")
        page.keyboard.press("g") # Without the floor only the figure differs from the background
        figure = lambda: np.abs(np.diff(seen(page), axis=-1)).max(-1)>40
        body = figure()
        page.keyboard.press("b")
        picture,bones = seen(page),figure()
        assert page.evaluate("player.bones") and 100<bones.sum()<.5*body.sum()
        red,blue = picture[..., 0]-picture[..., 2]>60,picture[..., 2]-picture[..., 0]>60
        assert red.sum()>50 and blue.sum()>50
        assert np.nonzero(red)[1].mean()>np.nonzero(blue)[1].mean()+10, "seen from the front, left is on the right"
        page.keyboard.press("b")
        assert (figure()!=body).mean()<1e-3


@needs_browser
def test_a_question_mark_lists_the_keys(browser, page_file):
    with visit(browser, page_file) as page:
        page.focus(".loop")
        page.keyboard.press("?")
        assert page.evaluate("document.querySelector('dialog').open")
        listed = page.locator("dialog kbd").all_inner_texts()
        for key in page.evaluate("Object.keys(player.keys()).filter(key => key.length === 1)"):
            if key not in " k0=_−-": assert key in listed, key
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("t")
        assert turned(page)[0]==.38 and not page.evaluate("player.trails"), "what is behind the list is left alone"
        page.keyboard.press("Escape")
        assert not page.evaluate("document.querySelector('dialog').open")
        assert page.evaluate("document.activeElement.className")=="loop"
        page.set_viewport_size(dict(width=320, height=480))
        page.evaluate("player.help()")
        box = page.locator("dialog").bounding_box()
        assert box["x"]>=0 and box["y"]>=0 and box["x"]+box["width"]<=320 and box["y"]+box["height"]<=480
        page.click("dialog .close")
        assert not page.evaluate("document.querySelector('dialog').open")


@needs_browser
def test_focus_is_seen_from_the_first_stop_on(browser, page_file):
    ring = "() => { const s = getComputedStyle(document.activeElement); return [document.activeElement.tagName, document.activeElement.className, s.outlineStyle, parseFloat(s.outlineWidth)] }"
    with visit(browser, page_file, viewport=dict(width=1200, height=700)) as page:
        stops = []
        for _ in range(40):
            page.keyboard.press("Tab")
            tag,name,style,width = page.evaluate(ring)
            if tag in ("BODY", "HTML"): break # Back in the browser's own bar
            stops.append(name or tag)
            assert style!="none" and width>=2, name
        assert stops[0]=="CANVAS" and len(stops)==len(set(stops))>=18, stops


@needs_browser
@pytest.mark.parametrize("size", [(320, 480), (400, 800), (844, 390)])
def test_every_control_is_within_reach_of_a_thumb(browser, page_file, size):
    "What can be tapped lies in the window, under nothing else, and is large enough for a finger"
    reach = """() => [...document.querySelectorAll('.controls button, .controls select, .controls input, .tools button')].filter(part => part.offsetParent).map(part => {
        const box = part.getBoundingClientRect(), hit = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
        return [part.className || part.tagName, part.contains(hit), box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight, box.width, box.height] })"""
    with visit(browser, page_file, viewport=dict(width=size[0], height=size[1]), has_touch=True, is_mobile=True) as page:
        page.tap(".more")
        assert page.get_attribute(".more", "aria-expanded")=="true"
        parts = page.evaluate(reach)
        assert len(parts)>=19
        for name,free,inside,width,height in parts: assert free and inside and width>=38 and height>=34, (name, free, inside, width, height)
        for name in ("bones", "trails", "ground", "follow", "front"):
            before = page.get_attribute(f".{name}", "aria-pressed")
            page.tap(f".{name}")
            page.wait_for_function("([name, before]) => document.querySelector('.' + name).getAttribute('aria-pressed') !== before", arg=[name, before])
        page.evaluate("player.seek(2)")
        page.tap(".from")
        page.evaluate("player.seek(4)")
        page.tap(".to")
        assert page.evaluate("player.region")==[2, 4] and page.evaluate("player.loop")
        page.tap(".keys")
        page.tap("dialog .close")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# ---- for every eye

@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_forced_colours_states_are_told_apart(browser, page_file, scheme):
    look = "name => { const s = getComputedStyle(document.querySelector(name)); return [s.backgroundColor, s.borderTopStyle, parseFloat(s.borderTopWidth)] }"
    with visit(browser, page_file, viewport=dict(width=1200, height=700), forced_colors="active", color_scheme=scheme) as page:
        pressed,released = page.evaluate(look, ".follow"),page.evaluate(look, ".trails")
        assert pressed[0]!=released[0], "not by the colour of a line alone"
        for name in (".play", ".follow", ".trails", ".keys", "select"): assert page.evaluate(look, name)[1:]==["solid", 1], name
        page.evaluate("player.seek(4)")
        from PIL import Image
        line = np.asarray(Image.open(io.BytesIO(page.locator("input").screenshot())).convert("RGB")).astype(int)
        row = line[line.shape[0]//2]
        assert np.abs(row[len(row)//4]-row[3*len(row)//4]).sum()>100, "how far the song is"


@needs_browser
def test_who_wants_less_motion_sees_only_the_dance(browser, page_file):
    "No glide, no pulse on the floor; the dance itself is what one has come for, and begins when one asks for it"
    after = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done([player.camera.now.azimuth === player.camera.wanted.azimuth, Math.max(...pulses)]))))"
    for wish,calm in (("reduce", True), ("no-preference", False)):
        with visit(browser, page_file, reduced_motion=wish, viewport=SMALL) as page:
            page.evaluate("() => { window.pulses = [0]; const draw = player.screen.draw.bind(player.screen); player.screen.draw = (...all) => { pulses.push(all[4]); draw(...all) } }")
            page.evaluate("player.seek(.5), player.play()")
            page.wait_for_function("player.frame > 31 && pulses.length > 2")
            page.keyboard.press("2")
            there,pulse = page.evaluate(after)
            assert (there, pulse==0)==(calm, calm)


@needs_browser
def test_the_picture_is_never_coarser_than_half(browser, page_file):
    size = "() => { const c = document.querySelector('canvas'); return [c.width / c.clientWidth / Math.min(devicePixelRatio, 2), c.height / c.clientHeight / Math.min(devicePixelRatio, 2)] }"
    for ratio in (1, 2):
        with visit(browser, page_file, viewport=SMALL, **(dict(device_scale_factor=ratio) if ratio>1 else {})) as page:
            assert page.evaluate(size)==pytest.approx([1, 1], abs=.01), "at rest every pixel is drawn"
            page.evaluate("player.play()")
            page.wait_for_function("player.frame > 3")
            page.evaluate("() => { for (let k = 0; k < 500; k++) player.easeOff(60) }")
            page.wait_for_timeout(100)
            assert min(page.evaluate(size))>=.495
            page.evaluate("player.pause()")
            page.wait_for_function(f"Math.abs(({size})()[0] - 1) < .01")


@needs_browser
@pytest.mark.skipif(not AXE.is_file(), reason="no axe: npm install axe-core, and name axe.min.js in AXE")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_bars_the_way(browser, page_file, pair_file, scheme):
    "No violation of WCAG level A or AA: the page, its tools on a phone, its list of keys, and two dancers"
    def violations(page):
        found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})")["violations"]
        return [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]
    for path in (page_file, pair_file):
        with visit(browser, path, viewport=dict(width=1200, height=700), color_scheme=scheme) as page:
            page.evaluate(AXE.read_text(encoding="utf-8"))
            assert violations(page)==[]
            page.set_viewport_size(dict(width=360, height=640))
            page.evaluate("player.expand(true)")
            assert violations(page)==[]
            page.evaluate("player.help()")
            assert violations(page)==[]


# ---- taking along

@needs_browser
def test_the_picture_is_saved(browser, page_file, tmp_path):
    from PIL import Image
    with visit(browser, page_file) as page:
        page.evaluate("player.seek(2)")
        with page.expect_download() as saved: page.keyboard.press("p")
        assert saved.value.suggested_filename.endswith(" 2.00s.png")
        saved.value.save_as(tmp_path/"frame.png")
        picture = Image.open(tmp_path/"frame.png")
        assert picture.size==(1200, 840), "two pixels for one"
        assert np.asarray(picture.convert("L")).std()>4
        assert "Saved" in page.inner_text(".note") and "hacked" not in page.evaluate("Object.keys(window).join()")
        page.wait_for_function("document.querySelector('canvas').width === 600")


@needs_browser
def test_the_clip_is_saved_with_its_song(browser, page_file, tmp_path):
    import av
    with visit(browser, page_file, viewport=dict(width=400, height=300)) as page:
        page.evaluate("player.region = [.5, 4.5]")
        with page.expect_download(timeout=60_000) as saved: page.keyboard.press("v")
        saved.value.save_as(tmp_path/"clip.webm")
        assert not page.evaluate("player.playing") and page.get_attribute(".clip", "aria-pressed")=="false"
    with av.open(str(tmp_path/"clip.webm")) as clip:
        assert 2<clip.duration/1e6<12, "players can seek"
        assert {stream.type for stream in clip.streams}=={"audio", "video"}
        pictures = [picture.to_ndarray(format="rgb24").astype(int) for picture in clip.decode(video=0)]
    assert len(pictures)>=2 and pictures[0].shape[0]%2==0
    assert pictures[0].std()>4 and (np.abs(pictures[-1]-pictures[0]).sum(-1)>60).mean()>.001, "she moves"


@needs_browser
def test_a_second_press_ends_the_clip(browser, tmp_path):
    player.write_html(swaying(120.), tmp_path/"silent.html")
    with visit(browser, tmp_path/"silent.html", viewport=dict(width=320, height=280)) as page:
        with page.expect_download(timeout=60_000) as saved:
            page.keyboard.press("v")
            page.wait_for_function("player.time > .6")
            assert page.get_attribute(".clip", "aria-pressed")=="true" and "Recording until" in page.inner_text(".note")
            page.keyboard.press("v")
        assert saved.value.suggested_filename=="Dance 0.00s.webm" and page.evaluate("player.time")<100


# ---- side by side

@pytest.fixture(scope="session")
def pair_file(tmp_path_factory, song):
    "Made by the command"
    folder = tmp_path_factory.mktemp("pages")
    dances = [folder/"slow.npz", folder/"quick.npz"]
    for path,motion in zip(dances, (swaying(), swaying(5.))): motion.save(path)
    assert run(["page", *map(str, dances), "--song", str(song), "--names", "slow,<b>quick</b>", "--out", str(folder/"pair.html")])==0
    return folder/"pair.html"


@needs_browser
def test_two_dances_side_by_side(browser, pair_file):
    with visit(browser, pair_file, viewport=dict(width=1000, height=500)) as page:
        assert page.locator(".names span").all_inner_texts()==["slow", "<b>quick</b>"]
        first = seen(page)
        page.evaluate("player.seek(4)")
        moved = np.abs(seen(page)-first).sum(-1)>60
        assert moved[:, :500].mean()>.002 and moved[:, 500:].mean()>.002
        assert page.evaluate("[player.length, player.frames]")==[8, 480], "the longer one's time"
        page.evaluate("player.seek(7)")
        held = seen(page)
        page.evaluate("player.seek(7.8)")
        moved = np.abs(seen(page)-held).sum(-1)>60
        assert moved[:, :500].any() and not moved[:, 500:].any(), "who is through holds the last pose"


@needs_browser
def test_two_dances_on_a_phone_are_one_below_the_other(browser, pair_file):
    with visit(browser, pair_file, viewport=dict(width=360, height=700)) as page:
        boxes = [part.bounding_box() for part in page.locator(".names span").all()]
        assert boxes[0]["x"]==boxes[1]["x"] and boxes[1]["y"]>=boxes[0]["y"]+boxes[0]["height"]-1
        panes = page.evaluate("player.panes()")
        assert panes[0][1]==panes[1][3] and panes[0][1]+panes[0][3]==page.evaluate("player.canvas.height")
        assert abs(700-boxes[1]["y"]-panes[1][3])<=1.5, "each name above its dancer"
        first = seen(page)
        page.evaluate("player.seek(4)")
        moved = np.abs(seen(page)-first).sum(-1)>60
        cut = round(boxes[1]["y"])
        assert moved[:cut].mean()>.002 and moved[cut:].mean()>.002


@needs_browser
def test_the_slider(browser, page_file):
    with visit(browser, page_file) as page:
        box = page.locator("input").bounding_box()
        page.mouse.click(box["x"]+box["width"]/2, box["y"]+box["height"]/2)
        assert abs(frame(page)-240)<=5
        page.wait_for_function("document.querySelector('.time').textContent === '0:0' + (Math.floor(player.time*10)/10).toFixed(1)")
        assert page.evaluate("document.querySelector('.beats path').getAttribute('d').split('M').length")==17 # 16 beats


# ---- names are text

@needs_browser
def test_a_hostile_name_is_shown_and_not_run(browser, tmp_path, song):
    title = """</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'"&{{data}}"""
    player.write_html(swaying(1.), tmp_path/"hostile.html", song, title=title)
    with visit(browser, tmp_path/"hostile.html", viewport=SMALL) as page:
        assert page.title()==title
        assert page.inner_text(".title")==title
        assert page.evaluate("window.hacked") is None


@needs_browser
def test_the_song_name_is_the_title(browser, page_file, song):
    with visit(browser, page_file, viewport=SMALL) as page:
        assert page.title()==page.inner_text(".title")==song.stem
        assert page.evaluate("window.hacked") is None


@needs_browser
def test_even_an_injected_script_would_not_run(browser, page_file, tmp_path):
    "The content security policy names the one script that may"
    text = page_file.read_text(encoding="utf-8").replace("<noscript>", "<script>window.hacked=1</script><noscript>", 1)
    (tmp_path/"injected.html").write_text(text, encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    page.goto((tmp_path/"injected.html").as_uri())
    page.wait_for_function("window.player?.ready")
    assert page.evaluate("window.hacked") is None
    context.close()


# ---- size

@needs_browser
def test_ten_minutes_open_in_a_few_seconds(browser, tmp_path):
    player.write_html(swaying(600.), tmp_path/"long.html")
    assert (tmp_path/"long.html").stat().st_size<10e6
    with visit(browser, tmp_path/"long.html", viewport=SMALL) as page:
        assert page.evaluate("performance.now()")<8000
        page.evaluate("player.seek(599.5)")
        assert frame(page)==35970


# ---- without a browser

def test_the_page_is_one_file(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert "://" not in text and text.count("<script")==2
    assert page_file.stat().st_size<1.5e6


def test_the_sound_starts_when_the_song_does(tmp_path):
    "A click at one second is at one second in the page's MP3, whatever the song came in"
    import base64
    import av
    from audio2pose import audio
    rate = 44_100
    wave = np.zeros(2*rate, np.float32)
    wave[rate:rate+200] = .8*np.sin(np.arange(200)/200*20*np.pi)
    for name,codec in (("click.wav", "pcm_s16le"), ("click.m4a", "aac"), ("click.mp3", "libmp3lame"), ("click.flac", "flac"), ("click.mkv", "libopus")):
        with av.open(str(tmp_path/name), "w") as out:
            stream = out.add_stream(codec, rate=48_000 if codec=="libopus" else rate, layout="stereo")
            sound = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
            sound.sample_rate,sound.pts = rate,0
            out.mux(stream.encode(sound))
            out.mux(stream.encode(None))
        mp3 = player.sound_data(tmp_path/name)
        (tmp_path/"page.mp3").write_bytes(base64.b64decode(mp3["data"]))
        heard,expected = audio.load(tmp_path/"page.mp3", rate)[0], audio.load(tmp_path/name, rate)[0]
        first = [int(np.argmax(np.abs(y)>.3)) for y in (heard, expected)]
        assert abs(first[0]-first[1])<rate*.002, (name, first)
        assert abs(first[0]-rate)<rate*.01, (name, first)


@pytest.mark.parametrize("content,message", [(None, "no such file"), (b"", "sound cannot be read"), (b"words, words", "sound cannot be read")])
def test_a_bad_song_is_one_sentence_and_no_page(tmp_path, content, message):
    if content is not None: (tmp_path/"song.mp3").write_bytes(content)
    with pytest.raises(InputError, match=message): player.write_html(swaying(1.), tmp_path/"dance.html", tmp_path/"song.mp3")
    assert not (tmp_path/"dance.html").exists()


def test_a_bad_motion_or_place_is_one_sentence(tmp_path):
    good = swaying(1.)
    (tmp_path/"file").write_text("")
    with pytest.raises(InputError, match="no frames"): player.html(good[:0])
    with pytest.raises(InputError, match="not finite"): player.html(Motion(good.poses*np.nan, good.trans))
    with pytest.raises(InputError, match="3 names for 2 motions"): player.html([good, good], names="abc")
    with pytest.raises(InputError, match="name the page"): player.write_html(good, tmp_path/"dance.pdf")
    with pytest.raises(InputError, match="cannot write"): player.write_html(good, tmp_path/"file"/"dance.html")
