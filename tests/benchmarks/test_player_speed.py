"How many frames a second the player draws without a graphics card, what a frame costs, and how far she is from the song"
import glob
import os
import shutil
import time

import numpy as np
import pytest

from audio2pose.show import player
from audio2pose.motion import Motion

pytestmark = pytest.mark.benchmark


CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = "--headless --no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --autoplay-policy=no-user-gesture-required".split()


def processor_seconds():
    "Of all Chromium processes"
    ticks = 0
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as file: text = file.read()
        except OSError: continue
        if "(chrom" in text: ticks += sum(map(int, text.rsplit(")", 1)[1].split()[11:13]))
    return ticks/os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_a_minute_in_software(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    import soundfile
    time_line = np.arange(3600)/60
    poses = np.zeros((3600, 24, 3))
    poses[:, 16, 2],poses[:, 17, 2] = np.sin(3*time_line),-np.sin(3*time_line)
    soundfile.write(tmp_path/"tone.wav", .1*np.sin(2*np.pi*330*np.arange(60*22_050)/22_050), 22_050)
    player.write_html(Motion(poses, np.stack([.2*np.sin(time_line), .95+0*time_line, 0*time_line], 1)), tmp_path/"page.html", tmp_path/"tone.wav")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=dict(width=848, height=440))
        page.goto((tmp_path/"page.html").as_uri())
        page.wait_for_function("window.player?.ready")
        page.evaluate("player.play()")
        page.wait_for_timeout(4000) # Until it has found its sharpness
        begun,used,drawn,gaps = time.time(),processor_seconds(),page.evaluate("player.drawn"),[]
        for _ in range(50):
            page.wait_for_timeout(200)
            gaps.append(page.evaluate("player.time - player.audio.currentTime"))
        frames = page.evaluate("player.drawn")-drawn
        print(f"\n{frames/(time.time()-begun):.1f} frames/s, {1000*(processor_seconds()-used)/frames:.1f} ms of processor a frame, "
              f"largest distance from the song {1000*np.abs(gaps).max():.0f} ms, {page.evaluate('[player.canvas.width, player.canvas.height]')} px, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        browser.close()
