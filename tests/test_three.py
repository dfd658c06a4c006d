"glTF read by three.js in a real browser: names, heights, frame rate, ground, the first and the last pose"
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from audio2pose.body.footing import on_floor
from audio2pose.body.skin import load_body, skinned_vertices
from audio2pose.motion import Motion
from audio2pose.show import export
from audio2pose.show.rigs import SKELETONS, load_rig

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
THREE = Path(os.environ.get("THREE", ""))
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(not (THREE/"build/three.module.js").is_file(), reason="no three.js: npm install three, and name node_modules/three in THREE"),
]
MILLIMETRE = 1e-3
PAGE = """<!doctype html><script type="importmap">{"imports": {"three": "/three/build/three.module.js", "three/addons/": "/three/examples/jsm/"}}</script>
<script type="module">
import { AnimationMixer, Box3, LoopOnce, Vector3 } from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
window.read = async ([name, joints]) => {
  const { scene, animations } = await new GLTFLoader().loadAsync(name), [clip] = animations, bones = [], boxes = [];
  const mixer = new AnimationMixer(scene), action = mixer.clipAction(clip), box = () => { const { min, max } = new Box3().setFromObject(scene, true); return [min.y, max.y]; };
  scene.updateMatrixWorld(true);
  scene.traverse(node => joints.includes(node.userData.name ?? node.name) && bones.push(node));
  const at = time => {
    mixer.setTime(time);
    scene.updateMatrixWorld(true);
    boxes.push(box());
    return bones.map(bone => bone.getWorldPosition(new Vector3()).toArray());
  };
  const rest = box();
  action.setLoop(LoopOnce);
  action.clampWhenFinished = true;
  action.play();
  return { names: bones.map(bone => bone.userData.name ?? bone.name), rest, boxes, duration: clip.duration, clips: animations.length,
           times: clip.tracks.map(track => [track.times.length, track.times[0], track.times.at(-1)]), poses: [at(0), at(clip.duration)] };
};
window.ready = true;
</script>"""


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    "Reads a file with three.js; nothing comes from a network"
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install "audio2pose[dev]"')
    folder = tmp_path_factory.mktemp("three")
    def serve(route):
        place = route.request.url.removeprefix("http://localhost/")
        if place=="": return route.fulfill(body=PAGE, content_type="text/html")
        if place.startswith("three/"): return route.fulfill(body=(THREE/place.removeprefix("three/")).read_bytes(), content_type="text/javascript")
        return route.fulfill(body=(folder/place).read_bytes(), content_type="model/gltf-binary")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.route("**/*", serve)
        page.goto("http://localhost/")
        page.wait_for_function("window.ready", timeout=60_000)
        def read(write, motion, name, joints, **options):
            write(motion, folder/name, **options)
            return page.evaluate("read", [name, joints])
        yield read
        browser.close()


def stepping(fps, frames=45):
    "Steps and swinging arms, .3 m above the floor"
    rng = np.random.default_rng(0)
    time = np.arange(frames)[:,None,None]/fps
    poses = .4*np.sin(2*np.pi*time+rng.uniform(0, 6, (1, 24, 3)))
    poses[:,22:] = 0 # The middle of a hand turns in no rig but SMPL's
    return Motion(poses, np.stack([.2*np.sin(time[:,0,0]), 1.2+0*time[:,0,0], .1*time[:,0,0]], 1), fps)


@pytest.mark.parametrize("skeleton", [*SKELETONS, "vrma"])
@pytest.mark.parametrize("fps", [60, 30])
def test_three_reads_the_dance(read, skeleton, fps):
    motion = stepping(fps)
    rig,grounded = load_rig("vrm" if skeleton=="vrma" else skeleton),on_floor(motion)
    if skeleton=="vrma": said = read(export.vrma, motion, f"dance{fps}.vrma", rig.names)
    else: said = read(export.gltf, motion, f"{skeleton}{fps}.glb", rig.names, skeleton=skeleton)
    assert sorted(said["names"])==sorted(rig.names) and said["clips"]==1
    assert said["duration"]==pytest.approx((len(motion)-1)/fps, abs=1e-6)
    assert {tuple(np.round(times, 6)) for times in said["times"]}=={(len(motion), 0., round((len(motion)-1)/fps, 6))}, "a key on every frame"
    order = [said["names"].index(name) for name in rig.names]
    for found,frame in zip(said["poses"], (0, len(motion)-1)):
        assert np.linalg.norm(np.array(found)[order]-grounded.positions()[frame, list(rig.joints)], axis=-1).max()<MILLIMETRE
    if skeleton=="vrma": return # Bones alone
    assert abs(said["rest"][0])<MILLIMETRE and 1.6<said["rest"][1]<1.8, "at rest the soles are on the floor"
    for (low,high),frame in zip(said["boxes"], (0, len(motion)-1)):
        body = skinned_vertices(load_body(), grounded[frame:frame+1])[0]
        assert abs(low-body[:, 1].min())<MILLIMETRE and abs(high-body[:, 1].max())<MILLIMETRE
