"The page in a real browser: Debian's Chromium, without a screen, a GPU or a network"
import io
import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from audio2pose.show import player
from audio2pose.core import InputError
from audio2pose.motion import Motion

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
         "--disable-sync --autoplay-policy=no-user-gesture-required").split()
SOFTWARE_GL = "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader".split()
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


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


@contextmanager
def visit(browser, path, ready=True, script="", **options):
    "Open a page file; afterwards nothing may have gone wrong and nothing may have been fetched"
    context = browser.new_context(**{"viewport": {"width": 600, "height": 420}, **options})
    context.set_default_timeout(20_000)
    context.set_offline(True)
    context.route("http*://**", lambda route: route.abort())
    page,wrong,fetched = context.new_page(), [], []
    page.on("console", lambda message: wrong.append(message.text) if message.type=="error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    if script: page.add_init_script(script)
    page.goto(path.as_uri())
    if ready: page.wait_for_function("window.player?.ready")
    try:
        yield page
        assert wrong==[]
        assert [url for url in fetched if not url.startswith(("blob:", "data:"))]==[path.as_uri()]
    finally: context.close()


def seen(page):
    "The dancer's canvas as an array, controls and title hidden"
    from PIL import Image
    page.evaluate("() => document.querySelectorAll('.controls, .title, .note').forEach(part => part.style.visibility = 'hidden')")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(float)


def frame(page): return page.evaluate("player.frame")


# ---- playing

@needs_browser
def test_it_plays_and_the_song_leads(browser, page_file):
    with visit(browser, page_file) as page:
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
    with visit(browser, page_file) as page:
        for time in (1.5, .008, 0, 1/60, 4.99, 6.2, 7.9):
            page.evaluate("time => player.seek(time)", time)
            page.wait_for_timeout(60)
            assert abs(frame(page)-round(60*time))<=1
            assert page.evaluate("player.time")==pytest.approx(time)


@needs_browser
def test_a_seek_while_playing_goes_on_from_there(browser, page_file):
    with visit(browser, page_file) as page:
        page.evaluate("player.play()")
        page.wait_for_function("player.frame > 5")
        page.evaluate("player.seek(3)")
        assert 180<=frame(page)<200
        page.wait_for_function("player.frame > 200")
        assert page.evaluate("Math.abs(player.audio.currentTime - player.time)")<.1


@needs_browser
def test_seeking_beyond_either_end_stays_inside(browser, page_file):
    with visit(browser, page_file) as page:
        page.evaluate("player.seek(-5)")
        assert frame(page)==0
        page.evaluate("player.seek(1e9)")
        assert frame(page)==479
        page.evaluate("player.seek(NaN)")
        assert frame(page)==0


@needs_browser
def test_it_dances_on_after_the_song_and_rests_at_the_end(browser, page_file):
    with visit(browser, page_file) as page:
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
    with visit(browser, tmp_path/"short.html") as page:
        assert page.evaluate("player.length")==pytest.approx(5, abs=.01)
        page.evaluate("player.seek(4.5), player.play()")
        page.wait_for_function("player.time > 4.8")
        assert frame(page)==59


@needs_browser
def test_without_a_song_it_keeps_its_own_time(browser, tmp_path):
    player.write_html(swaying(), tmp_path/"silent.html", title="Silent")
    with visit(browser, tmp_path/"silent.html") as page:
        page.evaluate("player.play()")
        start = page.evaluate("[player.time, performance.now()/1000]")
        page.wait_for_timeout(700)
        stop = page.evaluate("[player.time, performance.now()/1000]")
        assert stop[0]-start[0]==pytest.approx(stop[1]-start[1], abs=.03)
        assert page.is_hidden(".sound")


@needs_browser
def test_a_muted_tab_changes_nothing_but_the_sound(launch, page_file):
    muted = launch([*SOFTWARE_GL, "--mute-audio"])
    with visit(muted, page_file) as page:
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
    with visit(browser, tmp_path/"short.html") as page:
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
    with visit(browser, page_file, script=refuse) as page:
        page.evaluate("player.play()")
        page.wait_for_timeout(100)
        assert not page.evaluate("player.playing") and frame(page)==0


@needs_browser
def test_a_song_that_cannot_be_decoded_is_said_and_danced_without(browser, tmp_path, song, monkeypatch):
    monkeypatch.setattr(player, "sound_data", lambda path: {"type": "audio/mpeg", "seconds": 5., "data": player.base64_text(b"noise"*99)})
    player.write_html(swaying(), tmp_path/"broken.html", song)
    with visit(browser, tmp_path/"broken.html") as page:
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
    with visit(browser, page_file) as page:
        def after(key):
            page.keyboard.press(key)
            return frame(page)
        assert after("ArrowRight")==60
        assert after(".")==61
        assert after(",")==60
        assert after("Shift+ArrowRight")==360
        assert after("ArrowLeft")==300
        assert after("End")==479
        assert after("Home")==0
        page.focus("input") # The slider leaves the arrows to the page
        assert after("ArrowRight")==60
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
    with visit(browser, tmp_path/"hostile.html") as page:
        assert page.title()==title
        assert page.inner_text(".title")==title
        assert page.evaluate("window.hacked") is None


@needs_browser
def test_the_song_name_is_the_title(browser, page_file, song):
    with visit(browser, page_file) as page:
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
    with visit(browser, tmp_path/"long.html") as page:
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
    with pytest.raises(InputError, match="name the page"): player.write_html(good, tmp_path/"dance.pdf")
    with pytest.raises(InputError, match="cannot write"): player.write_html(good, tmp_path/"file"/"dance.html")
