"A Unitree G1 that dances: every motor within its limits, no sole under the floor, no jumps, and what was a robot's motion comes back"
import zipfile

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from audio2pose.body.retarget import retarget
from audio2pose.commands.dance import Output, write_files
from audio2pose.core import InputError
from audio2pose.data.g1 import g1_numbers, read_g1
from audio2pose.motion import Motion
from audio2pose.show.robot import g1_csv, load_g1, robot_places, sole_places, to_g1

ROBOT = load_g1()


def places_of(numbers): return robot_places(ROBOT, numbers[:,:3], Rotation.from_quat(numbers[:,3:7]).as_matrix(), numbers[:,7:])


def check_promises(numbers):
    angles = numbers[:,7:]
    assert np.isfinite(numbers).all() and numbers.shape[1]==36
    assert (angles>=ROBOT.limits[:,0]).all() and (angles<=ROBOT.limits[:,1]).all()
    assert sole_places(ROBOT, *places_of(numbers))[...,2].min()>-1e-3
    assert np.allclose(np.linalg.norm(numbers[:,3:7], axis=1), 1)
    assert ((numbers[1:,3:7]*numbers[:-1,3:7]).sum(1)>0).all(), "a quaternion changes its sign"


def swaying(frames=90, seed=0, size=.5):
    "Every joint sways by itself"
    rng,time = np.random.default_rng(seed),np.arange(frames)/60
    poses = size*rng.normal(size=(24, 3))*np.sin(2*np.pi*rng.uniform(.3, 1, (24, 3))*time[:,None,None]+rng.uniform(0, 6, (24, 3)))
    return Motion(poses, np.stack([.3*np.sin(time), .93+.05*np.sin(3*time), .2*time], 1))


@pytest.mark.parametrize("seed,size,frames", [(0, .5, 90), (1, 1.5, 60), (2, 3., 30), (3, 0., 1)])
def test_limits_floor_and_shape_whatever_is_danced(seed, size, frames): check_promises(to_g1(swaying(frames, seed, size)))


def test_a_dancer_at_rest_stands_upright_with_level_feet():
    rest = Motion(np.zeros((20, 24, 3)), np.tile([0, .986, 0], (20, 1)))
    numbers = to_g1(rest)
    places,turned = places_of(numbers)
    assert np.abs(sole_places(ROBOT, places, turned)[...,2]).max()<.005
    left,right = places[0,ROBOT.index("left_wrist_yaw_link", "right_wrist_yaw_link")]
    assert left[1]>.35 and right[1]<-.35 and places[0,0,2]>.7, "arms stretched to the sides, hips high"
    assert np.abs(np.diff(numbers, axis=0)).max()<1e-3


def test_file(tmp_path):
    motion = swaying(20)
    g1_csv(motion, tmp_path/"a.csv")
    assert np.abs(g1_numbers(tmp_path/"a.csv")-to_g1(motion)).max()<1e-6
    for name,broken in (("a.txt", motion), ("b.csv", Motion(np.full((3, 24, 3), np.nan), np.zeros((3, 3))))):
        with pytest.raises(InputError): g1_csv(broken, tmp_path/name)
    assert [path.name for path in tmp_path.iterdir()]==["a.csv"]


def test_format_of_the_dance_command(tmp_path):
    write_files(swaying(20), tmp_path/"no.wav", "", None, tmp_path, Output(("g1",), fps=30.), lambda name: None, False)
    assert len(g1_numbers(tmp_path/"g1.csv"))==10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["B_DadDance", "J_Dance11_Gnarly"])
def test_a_robots_dance_comes_back(tmp_path, shared, name):
    "csv → SMPL-24 → csv: bodies within 2.5 cm of where they were from the pelvis, angles within 9 degrees, both on average"
    with zipfile.ZipFile(shared("real/dance/g1_moves.zip")) as archive: lines = archive.read(f"{name}.csv").decode().splitlines()[:600]
    (tmp_path/"a.csv").write_text("\n".join(lines))
    before,after = g1_numbers(tmp_path/"a.csv"),to_g1(retarget(*read_g1(tmp_path/"a.csv")))
    check_promises(after)
    (one,_),(two,_) = places_of(before),places_of(after)
    assert np.linalg.norm((one-one[:,:1])-(two-two[:,:1]), axis=-1).mean()<.025
    assert np.degrees(np.abs(before[:,7:]-after[:,7:])).mean()<9
    assert np.abs(np.diff(after[:,7:], axis=0)).max()*60<32, "quicker than its hips can"
