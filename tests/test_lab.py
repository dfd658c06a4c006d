"A real JupyterLab in a real browser: the tour as a new user would go through it, and what may go wrong on the way"
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from copies import CAN_COPY

from audio2pose.core import InputError

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync "
         "--autoplay-policy=no-user-gesture-required --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
         "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream").split()
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
LOOK = 100 # ms between two looks at a page: to look at each of its frames makes it draw frames
PREPARE = """
import numpy as np
from audio2pose.show.player import Dancer
from audio2pose.motion import Motion
def swaying(seconds):
    time = np.arange(round(60*seconds))/60
    poses = np.zeros((len(time), 24, 3))
    poses[:, 16, 2] = np.sin(3*time)
    poses[:, 17, 2] = -np.sin(3*time)
    return Motion(poses, np.stack([.2*np.sin(time), .95+0*time, 0*time], 1))
def tone(seconds): return .1*np.sin(2*np.pi*330*np.arange(round(seconds*22050))/22050), 22050
"""


# ---- a server

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    "`audio2pose lab` in a folder of its own; yields its address and the folder"
    pytest.importorskip("jupyterlab", reason='pip install "audio2pose[lab]"')
    home,port = tmp_path_factory.mktemp("lab"),free_port()
    environment = {key: value for key,value in os.environ.items() if key not in ("AUDIO2POSE_STILLS", "MPLBACKEND")}
    environment |= dict(JUPYTER_CONFIG_DIR=str(home/"config"), JUPYTER_DATA_DIR=str(home/"data"), JUPYTERLAB_WORKSPACES_DIR=str(home/"workspaces"), OMP_NUM_THREADS="1")
    options = [f"--option={option}" for option in ("--allow-root", "--ServerApp.token=", "--ServerApp.password=", "--LabApp.expose_app_in_browser=True")]
    command = [sys.executable, "-c", "from audio2pose.cli import main; main()", "lab", str(home/"guides"), "--no-browser", "--port", str(port), *options]
    (home/"config").mkdir()
    if CAN_COPY: (home/"config"/"jupyter_server_config.py").write_text(f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\nimport copies\ncopies.copy_kernels()\n")
    with open(home/"log", "w") as log: process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        for _ in range(240):
            if process.poll() is not None: pytest.fail((home/"log").read_text())
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=2).close()
                break
            except OSError: time.sleep(.5)
        yield f"http://127.0.0.1:{port}",home/"guides"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install "audio2pose[dev]"')
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


shared_pages = {} # Server → a page in which notebooks are opened and closed; to load JupyterLab takes longer than most of them
OPEN = "async name => { await jupyterapp.commands.execute('docmanager:open', { path: name }) }" # Not to answer with the notebook
CLOSE = """async () => { for (const shown of [...jupyterapp.shell.widgets('main')]) shown.dispose(); // Without a question whether to save
    await jupyterapp.serviceManager.sessions.shutdownAll(); }"""


@contextmanager
def opened(browser, server, name, fresh=False, viewport=None, permissions=()):
    "A notebook in JupyterLab, in a page that has shown others unless it shall be fresh; nothing may go wrong in it"
    wrong,page = [],None if fresh else shared_pages.pop(server, None)
    known,done = page is not None,False
    page = page or browser.new_context().new_page()
    try:
        note = lambda error: wrong.append(str(error))
        page.on("pageerror", note)
        page.context.set_default_timeout(90_000)
        page.context.grant_permissions(list(permissions))
        page.set_viewport_size(viewport or dict(width=1280, height=900))
        if known: page.evaluate(OPEN, name)
        else: page.goto(f"{server[0]}/lab/tree/{name}?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_function("document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'", polling=LOOK)
        yield page
        assert wrong==[]
        page.remove_listener("pageerror", note)
        done = not fresh
    finally:
        if done:
            page.evaluate(CLOSE)
            page.context.clear_permissions()
            shared_pages[server] = page
        else: page.context.close()


def notebook(server, name, *cells):
    "Write a notebook into the folder of the server"
    from nbformat import v4, write
    made = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells], metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")))
    write(made, server[1]/name)
    return name


def run_all(page, count, timeout=90_000):
    "Run every cell and wait for the last; no cell may fail"
    page.click(".jp-Notebook .jp-CodeCell .jp-InputPrompt >> nth=0")
    begin(page)
    for _ in range(count): page.keyboard.press("Shift+Enter")
    wait_idle(page, timeout)


def begin(page):
    "Run the first code cell; a kernel may be connected and not yet listening"
    for _ in range(40):
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(700)
        if page.locator(".jp-CodeCell .jp-InputPrompt").first.inner_text().strip("[] :"): return


def wait_idle(page, timeout=90_000):
    "Until nothing runs and nothing waits"
    page.wait_for_timeout(300)
    page.wait_for_function("""() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'
        && ![...document.querySelectorAll('.jp-InputPrompt')].some(prompt => prompt.textContent.includes('*'))""", timeout=timeout, polling=LOOK)


def restart(page, server, name):
    "Restart the kernel of a notebook"
    with urllib.request.urlopen(f"{server[0]}/api/sessions") as said: sessions = json.load(said)
    kernel = next(session["kernel"]["id"] for session in sessions if session["path"]==name)
    done = page.evaluate("""async kernel => (await fetch(`/api/kernels/${kernel}/restart`, { method: "POST", headers: { "X-XSRFToken": document.cookie.match(/_xsrf=([^;]*)/)?.[1] || "" } })).status""", kernel)
    assert done==200


def player(page, index=0, timeout=60_000, polling=LOOK):
    "A handle on a widget's player, once it has drawn"
    page.wait_for_function("i => document.querySelectorAll('.a2p-view')[i]?.player?.drawn > 0", arg=index, timeout=timeout, polling=polling)
    return page.evaluate_handle("i => document.querySelectorAll('.a2p-view')[i].player", index)


def ask(page, code):
    "Run a line in the last cell, and give what it says"
    page.evaluate("document.activeElement?.blur()")
    cell = page.locator(".jp-Notebook .jp-CodeCell").last
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(f"import json, os; open('answer.json.part', 'w').write(json.dumps({code})); os.rename('answer.json.part', 'answer.json')")
    page.keyboard.press("Control+Enter")


def answer(server, timeout=40):
    path = server[1]/"answer.json"
    for _ in range(timeout*10):
        if path.exists():
            said = json.loads(path.read_text())
            path.unlink()
            return said
        time.sleep(.1)
    raise AssertionError("the kernel did not answer")


# ---- the widget

@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_time_goes_both_ways(browser, server):
    name = notebook(server, "time.ipynb", PREPARE, "times = []\ndancer = Dancer(swaying(8), tone(8), np.arange(0, 8, .5), 'Swaying')\ndancer.observe(lambda c: times.append(c['new']), 'time')\ndancer", "0")
    with opened(browser, server, name) as page:
        run_all(page, 2)
        shown = player(page)
        ask(page, "[setattr(dancer, 'time', 3.25), setattr(dancer, 'trails', True), setattr(dancer, 'region', (2, 4))][:0]")
        assert answer(server)==[]
        page.wait_for_function("p => p.frame === 195 && p.trails && p.region?.[1] === 4", arg=shown)
        shown.evaluate("p => p.play()")
        page.wait_for_function("p => p.time > 3.6", arg=shown)
        shown.evaluate("p => p.pause()")
        resting = shown.evaluate("p => p.time")
        page.wait_for_timeout(600)
        ask(page, "[dancer.time, dancer.playing, len(times)]")
        seconds,playing,heard = answer(server)
        assert seconds==pytest.approx(resting, abs=1e-6) and not playing and heard>=2
        assert shown.evaluate("p => p.time")==resting, "its own words are not obeyed again"
        assert shown.evaluate("p => Math.abs(p.audio.currentTime - p.time)")<.1


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_widgets_side_by_side_and_a_dead_kernel(browser, server):
    cells = PREPARE,"one = Dancer([swaying(4), swaying(6)], tone(2), names=['a', 'b'])\none","two = Dancer(swaying(3))\ntwo","0"
    with opened(browser, server, notebook(server, "two.ipynb", *cells), viewport=dict(width=1280, height=2000)) as page:
        run_all(page, 3)
        first,second = player(page, 0),player(page, 1)
        assert first.evaluate("p => [p.dances.length, p.length]")==[2, 6]
        second.evaluate("p => p.play()")
        page.wait_for_function("p => p.time > .3", arg=second)
        assert first.evaluate("p => p.time")==0, "each has its own time"
        assert second.evaluate("p => p.audio")is None
        restart(page, server, "two.ipynb")
        page.wait_for_timeout(2500)
        alive = page.evaluate("() => [...document.querySelectorAll('.jp-OutputArea-output')].every(part => part.textContent.trim() || part.querySelector('canvas, img'))")
        assert alive, "no blank cell after a restart"


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ten_minutes(browser, server):
    with opened(browser, server, notebook(server, "long.ipynb", PREPARE, "long = Dancer(swaying(600))\nlong", "0")) as page:
        run_all(page, 2)
        shown = player(page)
        assert shown.evaluate("p => p.frames")==36_000
        shown.evaluate("p => p.seek(599.5)")
        assert shown.evaluate("p => p.frame")==35_970


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_song_is_dropped_and_one_is_recorded(browser, server, tmp_path):
    import soundfile
    cells = PREPARE,"from audio2pose.show.widget import dance_app\nfrom audio2pose import audio\nheard = []\ndef dance(path):\n    y, sr = audio.load(path)\n    heard.append(len(y)/sr)\n    return swaying(len(y)/sr)\nfloor = dance_app(dance, swaying(2))\nfloor","0"
    soundfile.write(tmp_path/"clap.wav", .3*np.random.default_rng(0).standard_normal((66_150, 2)), 22_050, subtype="FLOAT")
    (tmp_path/"letter.mp3").write_text("no song")
    with opened(browser, server, notebook(server, "floor.ipynb", *cells), permissions=["microphone"]) as page:
        run_all(page, 2)
        player(page)
        page.set_input_files(".a2p-box input", tmp_path/"clap.wav")
        page.wait_for_function("document.querySelector('.a2p-box .status').textContent.includes('3.0 s danced')", polling=LOOK)
        page.wait_for_function("document.querySelector('.a2p-view').player?.frames === 180", polling=LOOK)
        page.set_input_files(".a2p-box input", tmp_path/"letter.mp3")
        page.wait_for_function("document.querySelector('.a2p-box .status').textContent.includes('letter.mp3')", polling=LOOK)
        page.click(".a2p-box .record")
        page.wait_for_timeout(2500)
        page.click(".a2p-box .record")
        page.wait_for_function("document.querySelector('.a2p-box .status').textContent.includes('recording.webm: ')", polling=LOOK)
        assert 1<page.evaluate("document.querySelector('.a2p-view').player.length")<6


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_first_frame_comes_soon_after_the_cell(browser, server, record_property):
    "Measured and told; what is asserted is only that it does not take for ever on a busy machine"
    cells = PREPARE,"motion, song = swaying(60), tone(60)\nDancer(swaying(1))","Dancer(motion, song)"
    with opened(browser, server, notebook(server, "first.ipynb", *cells), viewport=dict(width=1280, height=2000)) as page:
        run_all(page, 2)
        player(page) # Player and libraries are loaded once
        page.locator(".jp-Notebook .jp-CodeCell").last.locator(".cm-content").click()
        begun = time.perf_counter()
        page.keyboard.press("Control+Enter")
        shown = player(page, 1, polling="raf")
        seconds = time.perf_counter()-begun
        assert shown.evaluate("p => p.frames")==3600
    record_property("first_frame_seconds", round(seconds, 2))
    sys.stdout.write(f"first frame of 60 s with their song: {seconds:.2f} s after the cell, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n")
    assert seconds<30


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_saved_notebook_opened_by_others(browser, server):
    "With a kernel that knows nothing of us, and nothing run: a picture or a sentence in every cell"
    cells = PREPARE,"one = Dancer(swaying(2), tone(2))\none","from audio2pose.show.widget import explorer\nfrom audio2pose.show.plot import joint_speeds\nexplorer(Dancer(swaying(3)), joint_speeds(swaying(3)))"
    with opened(browser, server, notebook(server, "saved.ipynb", *cells)) as page:
        run_all(page, 3)
        player(page)
        page.keyboard.press("Control+s")
        page.wait_for_timeout(2500)
    saved = json.loads((server[1]/"saved.ipynb").read_text())
    saved["metadata"].pop("widgets", None)
    assert sum(bool(cell.get("outputs")) for cell in saved["cells"])==2
    (server[1]/"given.ipynb").write_text(json.dumps(saved))
    with opened(browser, server, "given.ipynb", fresh=True, viewport=dict(width=1280, height=2400)) as page:
        alive = """() => { const parts = [...document.querySelectorAll('.jp-OutputArea-output')];
            return parts.length === 2 && parts.every(part => part.querySelector('img')?.naturalWidth > 100 || part.querySelector('iframe, canvas') || part.textContent.trim().length > 20) }"""
        page.wait_for_function(alive, timeout=60_000, polling=LOOK)


# ---- plots

MEASURE = """() => { const image = document.querySelector('.jp-OutputArea-output img'), area = image.closest('.jp-OutputArea-output').getBoundingClientRect(), seen = image.getBoundingClientRect();
    return [image.naturalWidth, seen.width, area.width, seen.right - area.right, seen.height / image.naturalHeight * image.naturalWidth / seen.width] }"""


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("width", [1280, 1600])
def test_a_plot_uses_the_width_and_is_not_cut_off(browser, server, width):
    "As wide as its cell where that is narrower than the plot, and never wider; its proportions stay"
    shown = notebook(server, f"plot{width}.ipynb", "import matplotlib.pyplot as plt\nfig,ax = plt.subplots(figsize=(9, 2), layout='constrained')\nax.plot([0, 1]);", "0")
    with opened(browser, server, shown, viewport=dict(width=width, height=900)) as page:
        run_all(page, 2)
        page.wait_for_function("document.querySelector('.jp-OutputArea-output img')?.naturalWidth > 0", polling=LOOK)
        pixels,seen,area,beyond,stretched = page.evaluate(MEASURE)
    sys.stdout.write(f"window {width}: a plot of 9 inches has {pixels} pixels and is shown in {seen:.0f} of {area:.0f}\n")
    assert 1150<pixels<1300 and beyond<1 and stretched==pytest.approx(1, abs=.02)
    assert seen>.9*min(area, pixels)


# ---- the tour

@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tour_runs_to_its_end(browser, server):
    tour = json.loads((server[1]/"tour.ipynb").read_text())
    count = len(tour["cells"])
    with opened(browser, server, "tour.ipynb", fresh=True) as page:
        page.click(".jp-Notebook .jp-CodeCell .jp-InputPrompt >> nth=0")
        begin(page)
        for _ in range(count):
            page.keyboard.press("Shift+Enter")
            wait_idle(page, 300_000)
        page.keyboard.press("Control+s")
        page.wait_for_timeout(3000)
        assert page.locator(".Toastify__toast").count()==0, "nothing is asked before the tour is seen, of news for instance"
    saved = json.loads((server[1]/"tour.ipynb").read_text())
    outputs = [output for cell in saved["cells"] for output in cell.get("outputs", [])]
    assert all(cell["execution_count"] for cell in saved["cells"] if cell["cell_type"]=="code" and cell["source"])
    assert not [output for output in outputs if output["output_type"]=="error"]
    widgets = [output["data"] for output in outputs if "application/vnd.jupyter.widget-view+json" in output.get("data", {})]
    dancers = [data for data in widgets if "image/jpeg" in data] # The others are progress bars
    assert len(dancers)>=6 and sum("<iframe" in "".join(data.get("text/html", "")) for data in dancers)==2
    size = (server[1]/"tour.ipynb").stat().st_size
    sys.stdout.write(f"the tour, saved with its outputs: {size/1e6:.2f} MB\n")
    assert size<2_000_000, size


# ---- without a browser

def test_lab_says_what_is_missing(monkeypatch, tmp_path):
    from audio2pose.commands import lab
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(InputError, match=r'pip install "audio2pose\[lab\]"'): lab.check_requirements()


def test_guides_are_copied_once(tmp_path):
    from audio2pose.commands import lab
    new = lab.copy_guides(tmp_path/"mine")
    assert "tour.ipynb" in new
    (tmp_path/"mine"/"tour.ipynb").write_text("changed")
    assert lab.copy_guides(tmp_path/"mine")==[] and (tmp_path/"mine"/"tour.ipynb").read_text()=="changed"


def test_a_matplotlibrc_of_the_user_stays(tmp_path):
    from audio2pose.commands import lab
    (tmp_path/"matplotlibrc").write_text("figure.dpi: 33")
    new = lab.copy_guides(tmp_path)
    assert "lessons/matplotlibrc" in new and "matplotlibrc" not in new
    assert (tmp_path/"matplotlibrc").read_text()=="figure.dpi: 33" and "figure.dpi: 140" in (tmp_path/"lessons/matplotlibrc").read_text()


def test_every_link_leads_somewhere_in_the_lab(tmp_path):
    "Guides, lessons and pictures, from one to the other"
    from audio2pose.commands import lab
    lab.copy_guides(tmp_path/"lab")
    links = 0
    for path in [*(tmp_path/"lab").glob("*.*"), *(tmp_path/"lab/lessons").glob("*.ipynb")]:
        text = path.read_text(encoding="utf-8")
        if path.suffix==".ipynb": text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"]=="markdown")
        for link in re.findall(r"\]\(([^)\s]+\.(?:ipynb|md|png|jpg|webp))(?:#[^)]*)?\)", text):
            if "://" in link: continue
            assert (path.parent/link).resolve().is_file(), (path.name, link)
            links += 1
    assert links>100 and (tmp_path/"lab/lessons/000_core.ipynb").is_file()
    assert "](lessons/000_core.ipynb)" in (tmp_path/"lab/tour.ipynb").read_text(encoding="utf-8"), "the tour ends where the lessons begin"


def carrying(mark):
    "Living processes whose environment holds the mark: all that were started with it, whatever session they made for themselves"
    def environment(folder):
        try: return (folder/"environ").read_bytes()
        except OSError: return b""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if mark.encode() in environment(folder)]


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="no /proc: processes are counted there")


@needs_proc
def test_who_is_ended_ends_what_he_waits_for():
    code = ("import signal, subprocess, sys\nfrom audio2pose.commands.base import handle_signals\nfrom audio2pose.commands.lab import wait_for_process\nhandle_signals()\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\nsys.stdout.write('ready\\n'); sys.stdout.flush()\nwait_for_process(child)")
    mark = f"AUDIO2POSE_MARK={os.urandom(8).hex()}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ|dict([mark.split("=")]))
    assert process.stdout.readline()==b"ready\n" and len(carrying(mark))==2
    process.terminate()
    assert process.wait(60)==143 and carrying(mark)==[]


@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sigterm_ends_jupyter_too(tmp_path):
    pytest.importorskip("jupyterlab", reason='pip install "audio2pose[lab]"')
    port,environment = free_port(),os.environ|{f"JUPYTER_{name}_DIR": str(tmp_path/name) for name in ("CONFIG", "DATA", "RUNTIME")}
    mark = f"JUPYTER_RUNTIME_DIR={tmp_path/'RUNTIME'}"
    options = [f"--option={option}" for option in ("--allow-root", "--ServerApp.token=", "--ServerApp.password=")]
    command = [sys.executable, "-c", "from audio2pose.cli import main; main()", "lab", str(tmp_path/"guides"), "--no-browser", "--port", str(port), *options]
    with open(tmp_path/"log", "w") as log: process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        for _ in range(900):
            assert process.poll() is None, (tmp_path/"log").read_text()
            try: urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=5).close()
            except OSError: time.sleep(.5)
            else: break
        assert len(carrying(mark))>=2
        process.terminate()
        assert process.wait(60)==143 and carrying(mark)==[]
    finally:
        for left in carrying(mark): os.kill(left, signal.SIGKILL)


def test_guides_carry_pictures_and_no_widgets():
    "What is committed can be read anywhere"
    for path in sorted((Path(__file__).parents[1]/"nbs"/"guides").glob("*.ipynb")):
        made = json.loads(path.read_text())
        assert "widgets" not in made["metadata"], path.name
        for cell in made["cells"]:
            for output in cell.get("outputs", []): assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), path.name
