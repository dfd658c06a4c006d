"Readers, cleaning and beats, on motions that this test makes itself; real clips where they are at hand"
import hashlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from audio2pose.body.retarget import joint_distance, leg_scale, retarget
from audio2pose.core import InputError
from audio2pose.data.cmu import fetch_cmu, read_amc
from audio2pose.data.fetch import FetchOptions
from audio2pose.data.g1 import fetch_g1, g1_captures, read_g1
from audio2pose.data.capture_beats import active_frames, find_beats, landings
from audio2pose.data.captures import import_folder
from audio2pose.data.mocap import Filter, filter_capture, read_motion, resample_capture
from audio2pose.generate import check_seed_motion
from audio2pose.metrics.contact import sliding_contacts
from audio2pose.metrics.realism import knee_angles, largest_rotation
from audio2pose.motion import Motion
from audio2pose.body.footing import on_floor
from audio2pose.show.export import bvh, gltf
from audio2pose.skeleton import SMPL_24

BONES = {"lhipjoint": ("root", (.6, -.75, .2), 2), "lfemur": ("lhipjoint", (.34, -.94, 0), 7), "ltibia": ("lfemur", (.34, -.94, 0), 7), "lfoot": ("ltibia", (.1, -.3, .95), 2), "ltoes": ("lfoot", (0, 0, 1), 1),
         "lowerback": ("root", (0, 1, 0), 2), "upperback": ("lowerback", (0, 1, 0), 2), "thorax": ("upperback", (0, 1, 0), 2), "lowerneck": ("thorax", (0, 1, 0), 1.5), "head": ("lowerneck", (0, 1, 0), 1.5),
         "lclavicle": ("thorax", (.85, .5, 0), 3.5), "lhumerus": ("lclavicle", (1, 0, 0), 5), "lradius": ("lhumerus", (1, 0, 0), 3), "lwrist": ("lradius", (1, 0, 0), 1.5), "lhand": ("lwrist", (1, 0, 0), .7)}
BONES |= {"r"+name[1:]: ("r"+parent[1:] if parent[0]=="l" and parent not in ("lowerback", "lowerneck") else parent, (-x, y, z), length)
          for name,(parent,(x,y,z),length) in BONES.items() if name[0]=="l" and name not in ("lowerback", "lowerneck")}


def stepping(bpm=120., counts=24, idle=1., fps=60):
    beat = 60/bpm
    t = np.arange(round((2*idle+counts*beat)*fps))/fps-idle
    on = (t>0)&(t<counts*beat)
    poses,trans = np.zeros((len(t), 24, 3)),np.tile([0, .945, 0], (len(t), 1))
    for k,(hip,knee,ankle) in enumerate((SMPL_24.index("lhip", "lknee", "lankle"), SMPL_24.index("rhip", "rknee", "rankle"))):
        lift = np.where(on, np.clip(np.sin(np.pi*(t/beat-k)), 0, 1), 0)
        poses[:,hip,0],poses[:,knee,0],poses[:,ankle,0] = -.8*lift,1.5*lift,-.7*lift
    poses[:,SMPL_24.index("lelbow", "relbow"),1] = np.outer(np.where(on, .5-.5*np.cos(2*np.pi*t/beat), 0), [-1.2, 1.2])
    return Motion(poses, trans, fps)


def write_amc(folder, stem="7_01", frames=60, skeleton=True):
    lines = ["begin", "root "+" ".join(name for name,(parent,_,_) in BONES.items() if parent=="root")]
    lines += [" ".join([name, *children]) for name in BONES if (children := [child for child,(parent,_,_) in BONES.items() if parent==name])]
    bones = "".join(f"  begin\n id 1\n name {name}\n direction {x} {y} {z}\n length {length}\n axis 0 0 0 XYZ\n dof rx ry rz\n  end\n" for name,(_,(x,y,z),length) in BONES.items())
    asf = ":version 1.10\n:name T\n:units\n mass 1\n length 0.45\n angle deg\n:root\n order TX TY TZ RX RY RZ\n axis XYZ\n position 0 0 0\n orientation 0 0 0\n:bonedata\n"+bones+":hierarchy\n"+"\n".join(lines)+"\nend\n"
    if skeleton: (folder/f"{stem.split('_')[0]}.asf").write_text(asf)
    text = ":FULLY-SPECIFIED\n:DEGREES\n"
    for k in range(frames):
        bend = 40+40*np.sin(k/9)
        text += f"{k+1}\nroot 0 17 0 0 {k} 0\nlfemur {-bend/2:.4f} 0 -20\nltibia {bend:.4f} 0 0\nrfemur 0 0 20\nlhumerus 0 0 -60\nlradius 0 {-bend:.4f} 0\n"
    (folder/f"{stem}.amc").write_text(text)
    return folder/f"{stem}.amc"


def test_amc(tmp_path):
    capture,joints = read_amc(write_amc(tmp_path, frames=120))
    assert capture.fps==120 and capture.skeleton.names[joints["lwrist"]]=="lhand" and len(joints["trunk"])==3
    length = lambda a,b: np.linalg.norm(capture.positions[:,joints[a]]-capture.positions[:,joints[b]], axis=1)
    assert np.allclose(length("lhip", "lknee"), 7*.0254/.45) and np.allclose(length("lelbow", "lwrist"), 4.5*.0254/.45)
    upper,lower = (capture.positions[:,joints[b]]-capture.positions[:,joints[a]] for a,b in (("lhip", "lknee"), ("lknee", "lankle")))
    bend = np.degrees(np.arccos(np.clip((upper*lower).sum(1)/np.linalg.norm(upper, axis=1)/np.linalg.norm(lower, axis=1), -1, 1)))
    assert np.abs(bend.max()-80)<6
    motion = retarget(capture, joints)
    assert joint_distance(motion, capture, joints).mean()<.06
    facing = np.degrees(np.unwrap(np.arctan2(*(np.cross(motion.positions()[:,1]-motion.positions()[:,2], [0, 1., 0])[:,[0, 2]].T))))
    assert abs(facing[-1]-facing[0]-119)<3 # Turns as far as the source


def test_amc_without_its_skeleton_or_whole_frames(tmp_path):
    with pytest.raises(InputError, match="7.asf"): read_amc(write_amc(tmp_path, skeleton=False))
    path = write_amc(tmp_path)
    path.write_text(path.read_text()[:-150])
    with pytest.raises(InputError, match="7_01.amc"): read_amc(path)


def test_60_and_120_frames_a_second(tmp_path):
    assert [read_amc(write_amc(tmp_path, stem))[0].fps for stem in ("60_01", "05_02")]==[60, 120]


def test_motion_to_bvh_and_back(tmp_path):
    motion = stepping(110)
    for unit in ("cm", "m"):
        bvh(motion, tmp_path/f"{unit}.bvh", unit, "audio2pose")
        back = read_motion(tmp_path/f"{unit}.bvh")
        assert np.abs(back.positions()-on_floor(motion).positions()).max()<.001 and abs(back.fps-60)<1e-3


def test_any_format_may_be_continued(tmp_path):
    "What `dance --seed-motion` takes"
    motion = stepping(100, counts=4)
    gltf(motion, tmp_path/"a.glb", skeleton="audio2pose")
    bvh(motion, tmp_path/"a.bvh", skeleton="audio2pose")
    motion.save(tmp_path/"a.npz")
    motion.save(tmp_path/"a.pkl")
    numbers = np.zeros((120, 36))
    numbers[:,2],numbers[:,6] = .78,1
    np.savetxt(tmp_path/"a.csv", numbers, delimiter=",")
    for path in (*sorted(tmp_path.glob("a.*")), write_amc(tmp_path)):
        past = check_seed_motion(path)
        assert past.seconds>=.5 and np.isfinite(past.positions()).all(), path
        assert past.positions()[:,SMPL_24.index("ltoes")].min()>-.02, path
    for name,told in (("a.fbx", "Blender"), ("one.npz", "one frame|half a second"), ("short.npz", "half a second"), ("nan.npz", "finite")):
        if name=="a.fbx": (tmp_path/name).write_bytes(b"Kaydara FBX Binary")
        else: np.savez(tmp_path/name, poses=np.full((60, 24, 3), np.nan) if name[0]=="n" else np.zeros((1 if name[0]=="o" else 20, 24, 3)), trans=np.zeros((60 if name[0]=="n" else 1 if name[0]=="o" else 20, 3)), fps=60)
        with pytest.raises(InputError, match=told) as error: check_seed_motion(tmp_path/name)
        assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("bpm", [82, 100, 128])
def test_tempo_and_beats(bpm):
    motion = stepping(bpm)
    part = active_frames(motion)
    assert .2<part.start/60<1.3 and .2<(len(motion)-part.stop)/60<1.3
    beats = find_beats([motion[part]])[0]
    assert abs(beats.bpm/bpm-1)<.02
    steps = landings(motion[part])[:,0]
    apart = (steps[:,None]-beats.times)[np.arange(len(steps)),np.abs(steps[:,None]-beats.times).argmin(1)]
    assert np.abs(np.median(apart))<.15*60/bpm # Half a beat off would be a wrong sign
    assert np.allclose(np.diff(beats.eights), 8*60/beats.bpm)


def test_import_keeps_going_and_says_why(tmp_path):
    home = tmp_path/"own"
    (home/"house").mkdir(parents=True)
    bvh(stepping(100), home/"house"/"step.bvh")
    write_amc(home, frames=480)
    np.savez(home/"one.npz", poses=np.zeros((1, 24, 3)), trans=np.zeros((1, 3)), fps=60)
    np.savez(home/"holes.npz", poses=np.full((200, 24, 3), np.nan), trans=np.zeros((200, 3)), fps=60)
    fast = stepping(100, counts=8, fps=500)
    fast.save(home/"fast.npz")
    (home/"bad.glb").write_bytes(b"glTF")
    write_amc(home, "9_01", skeleton=False)
    report = import_folder(home, tmp_path/"clean", progress=False)
    assert set(report["clips"])=={"step", "7_01", "fast"} and set(report["left_out"])=={"one.npz", "holes.npz", "bad.glb", "9_01.amc"}
    assert all("\n" not in why for why in report["left_out"].values())
    assert json.loads((tmp_path/"clean"/"report.json").read_text())["clips"]["step"]["style"]=="house"
    assert abs(report["clips"]["step"]["bpm"]/100-1)<.02
    with np.load(tmp_path/"clean"/"step.npz") as file: assert file["fps"]==60 and (np.diff(file["beats"])>0).all()
    assert sorted(path.name for path in (tmp_path/"clean").iterdir())==["7_01.npz", "fast.npz", "report.json", "step.npz"]
    with pytest.raises(InputError, match="no motion"): import_folder(tmp_path/"clean"/"..", tmp_path, progress=False)


def test_g1(tmp_path):
    numbers = np.zeros((120, 36))
    numbers[:,2],numbers[:,6] = .78,1
    numbers[:,7+3] = .3+.3*np.sin(np.arange(120)/10) # Left knee
    np.savetxt(tmp_path/"a.csv", numbers, delimiter=",")
    capture,joints = read_g1(tmp_path/"a.csv")
    motion = retarget(capture, joints)
    assert joint_distance(motion, capture, joints).mean()<.07 and not motion.known[SMPL_24.index("neck", "head", "linshoulder")].any()
    assert motion.known[SMPL_24.index("lhip", "rknee", "lankle", "lshoulder", "relbow")].all()
    np.savetxt(tmp_path/"b.csv", numbers[:,:30], delimiter=",")
    with pytest.raises(InputError, match="36 numbers"): read_g1(tmp_path/"b.csv")


class Server(BaseHTTPRequestHandler):
    "Breaks off the first answer to every question, and serves a page instead of files below /page"
    protocol_version = "HTTP/1.1"
    body = b"1\nroot 0 0 0 0 0 0\n"*2000

    def log_message(self, *_): pass

    def do_GET(self):
        turn = self.server.asked[self.path] = self.server.asked.get(self.path, 0)+1
        if self.path.startswith("/gone"): return self.send_error(404)
        start = int(self.headers["Range"].split("=")[1].rstrip("-")) if self.headers.get("Range") else 0
        rest = self.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"a"')
        if start: self.send_header("Content-Range", f"bytes {start}-{len(self.body)-1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[:9000] if turn==1 else rest)
        if turn==1: self.close_connection = True


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.asked,server.daemon_threads = {},True
    server.base = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_downloads_resume_and_are_remembered(server, tmp_path):
    quick = FetchOptions(tries=3, pause=.01, timeout=2.)
    files = fetch_cmu(tmp_path, ("143",), server.base+"/subjects", quick, progress=False)
    assert [(file.state, file.tries) for file in files]==[("fetched", 2)]*2
    assert (tmp_path/"143_35.amc").read_bytes()==Server.body
    (tmp_path/"143.asf").write_bytes(b"another") # Held against what the first download recorded
    files = fetch_cmu(tmp_path, ("143",), server.base+"/subjects", quick, progress=False)
    assert [file.state for file in files]==["fetched", "kept"] and hashlib.sha256((tmp_path/"143.asf").read_bytes()).hexdigest()==files[0].sha256
    assert all(file.state=="failed" for file in fetch_cmu(tmp_path/"none", ("143",), server.base+"/gone", quick, progress=False))


def test_a_capture_that_is_not_the_published_one_is_refused(server, tmp_path):
    files = fetch_g1(tmp_path, "bonus", server.base, FetchOptions(tries=2, pause=.01, timeout=2.), progress=False)
    assert len(files)==4 and all(file.state=="failed" for file in files) and not list(tmp_path.glob("*.bvh"))
    assert all(len(digits)==64 for digits in g1_captures().values())


REAL = ("cmu/60_03.amc", "cmu/61_03.amc", "cmu/60_09.amc", "cmu/61_09.amc", "cmu/93_charleston2.amc", "cmu/05_11.amc", "g1_moves/J_Dance4_Broadway.csv")


@pytest.fixture(scope="module")
def clips(shared, tmp_path_factory):
    "A few of the real clips as `import` cleans them: name → (capture, joints)"
    folder,read = tmp_path_factory.mktemp("real"),{}
    for archive in ("cmu", "g1_moves"):
        with zipfile.ZipFile(shared(f"real/dance/{archive}.zip")) as file:
            wanted = [name for name in REAL if name.startswith(archive)]
            skeletons = [name for name in file.namelist() if name.endswith(".asf")]
            file.extractall(folder/archive, [name for name in file.namelist() if name in skeletons or any(name.endswith(path.split("/")[1]) for path in wanted)])
    for path in REAL:
        found = next(folder.rglob(path.split("/")[1]))
        capture,joints = (read_amc if path.endswith("amc") else read_g1)(found)
        read[found.stem] = resample_capture(filter_capture(capture, Filter())[0], 60),joints
    return read


def source_positions(capture, joints):
    "The source's own legs, scaled to SMPL-24's, in its order"
    positions = np.zeros((len(capture), 24, 3))
    for name in (side+joint for side in "lr" for joint in ("hip", "knee", "ankle", "toes")):
        positions[:,SMPL_24.index(name)] = leg_scale(capture, joints)*capture.positions[:,joints[name]]
    return positions


@pytest.mark.slow
def test_real_dances(clips):
    "Closeness to the source, feet that slide no more than the source's, straight knees, and no joint faster than 25 degrees a frame"
    distances,flexion = {},lambda positions: np.percentile(knee_angles(positions).min(1), 5)
    for name in ("60_03", "61_09", "93_charleston2", "05_11", "J_Dance4_Broadway"):
        capture,joints = clips[name]
        motion = retarget(capture, joints)
        ours,theirs = motion.positions(),source_positions(capture, joints)
        distances[name] = 100*joint_distance(motion, capture, joints).mean()
        assert sliding_contacts(ours, 60)<sliding_contacts(theirs, 60)+.03, name
        assert largest_rotation(motion)<25, name
        assert flexion(ours)<max(flexion(theirs), 12)+4, name
    assert distances.pop("J_Dance4_Broadway")<6 and np.mean(list(distances.values()))<4


@pytest.mark.slow
@pytest.mark.parametrize(["take", "bpm"], [("03", 164), ("09", 187)])
def test_partners_have_one_tempo(clips, take, bpm):
    "Lead and follow are two measurements of one tempo; take 09 is not danced at the 164 of the others"
    pair = [retarget(*clips[f"{subject}_{take}"]) for subject in ("60", "61")]
    pair = [motion[active_frames(motion)] for motion in pair]
    together = find_beats(pair, low=150, high=230, pauses=(3, 7))
    assert abs(together[0].bpm/bpm-1)<.02
    for motion,beats in zip(pair, together):
        assert abs(find_beats([motion], low=150, high=230)[0].bpm/together[0].bpm-1)<.02
        assert np.abs(beats.eights[:,None]-beats.times).min(1).max()<1e-9 and np.allclose(np.diff(beats.eights), 8*60/beats.bpm)


@pytest.mark.slow
def test_a_real_motion_to_bvh_and_back(clips, tmp_path):
    motion = retarget(*clips["93_charleston2"])
    bvh(motion, tmp_path/"a.bvh", skeleton="audio2pose")
    assert np.abs(read_motion(tmp_path/"a.bvh").positions()-motion.positions()).max()<.001
