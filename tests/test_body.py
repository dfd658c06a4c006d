"The shipped body is what its formulas give, a proper mesh, and stands on its soles"
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from audio2pose.body.skin import bone_transforms, build_body, load_body, regions, skinned_vertices
from audio2pose.core import asset
from audio2pose.motion import Motion
from audio2pose.skeleton import SMPL_24, rest_positions


@pytest.fixture(scope="module")
def body(): return load_body()


def still(trans=(0, 0, 0)): return Motion(np.zeros((1, 24, 3)), np.array([trans], float))


def test_shipped_body_is_what_the_shapes_give(body):
    pytest.importorskip("skimage")
    again = build_body()
    assert cKDTree(again.vertices).query(body.vertices)[0].max()<5e-3
    assert cKDTree(body.vertices).query(again.vertices)[0].max()<5e-3
    assert abs(len(again.faces)-len(body.faces))<100


def test_arrays(body):
    count = len(body.vertices)
    assert 4000<count<8000 and asset("body.npz").stat().st_size<400_000
    kinds = {name: (array.shape, array.dtype.name) for name,array in vars(body).items()}
    assert kinds=={
        "vertices": ((count, 3), "float32"), "normals": ((count, 3), "float32"), "faces": (body.faces.shape, "int32"), "colours": ((count, 3), "uint8"),
        "joints": ((count, 4), "uint8"), "weights": ((count, 4), "float32"), "sole": ((2,), "float32")}
    assert all(np.isfinite(array).all() for array in vars(body).values())
    assert set(body.faces.ravel())==set(range(count)), "no vertex without a triangle"
    np.testing.assert_allclose(np.linalg.norm(body.normals, axis=1), 1, atol=1e-5)


def test_surface_is_closed_and_faces_outward(body):
    _,point = np.unique(body.vertices.round(6), axis=0, return_inverse=True)
    faces = point.ravel()[body.faces]
    edges = {tuple(edge) for edge in faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2) if edge[0]!=edge[1]}
    assert all((b, a) in edges for a,b in edges)
    a,b,c = body.vertices[body.faces].transpose(1, 0, 2).astype(float)
    assert .05<(np.cross(a, b)*c).sum()/6<.12, "m³: a person, and outside is outside"
    across = np.cross(b-a, c-a)
    agree = (across*body.normals[body.faces].mean(1)).sum(1)>0
    assert agree[np.linalg.norm(across, axis=1)>1e-6].mean()>.995


def test_symmetric(body):
    assert cKDTree(body.vertices).query(body.vertices*[-1, 1, 1])[0].max()<1e-4


def test_weights(body):
    np.testing.assert_allclose(body.weights.sum(1), 1, atol=1e-5)
    assert (body.weights>=0).all() and body.joints.max()<24
    assert (np.diff(np.sort(body.joints, axis=1), axis=1)>0).all(), "a joint twice"
    assert (np.diff(body.weights, axis=1)<=1e-6).all(), "the largest first: what reads fewer than four may stop early"
    strong = np.bincount(body.joints[:, 0], minlength=24)>0
    assert strong.all(), [SMPL_24.names[j] for j in np.flatnonzero(~strong)]


def test_far_bones_do_not_pull(body):
    "A vertex follows bones of its neighbourhood only"
    rest = rest_positions(SMPL_24)
    for k in range(4):
        pulled = body.weights[:, k]>.05
        assert np.linalg.norm(body.vertices-rest[body.joints[:, k]], axis=1)[pulled].max(initial=0)<.55
    head = body.vertices[:, 1]>.65
    assert {SMPL_24.names[j] for j in body.joints[head][body.weights[head]>0]}<={"head", "neck"}


def test_every_region_is_there(body):
    assert len(np.unique(body.colours, axis=0))>=len(regions)


def test_stands_on_its_soles(body):
    ankles,toes = (rest_positions(SMPL_24)[SMPL_24.index(f"l{part}", f"r{part}"), 1].mean() for part in ("ankle", "toes"))
    np.testing.assert_allclose([ankles, toes]-body.vertices[:, 1].min(), body.sole, atol=1e-3)
    assert .08<body.sole[0]<.10 and .02<body.sole[1]<.04


def test_rest_pose_is_rest(body):
    np.testing.assert_allclose(skinned_vertices(body, still((1, 2, 3)))[0], body.vertices+[1, 2, 3], atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_turning_the_root_turns_all(body, seed):
    rng = np.random.default_rng(seed)
    poses,turn,trans = .4*rng.normal(size=(1, 24, 3)),Rotation.random(random_state=seed),rng.normal(size=(1, 3))
    turned = poses.copy()
    turned[0, 0] = (turn*Rotation.from_rotvec(poses[0, 0])).as_rotvec()
    plain = skinned_vertices(body, Motion(poses, np.zeros((1, 3))))[0]
    np.testing.assert_allclose(skinned_vertices(body, Motion(turned, trans))[0], turn.apply(plain)+trans, atol=1e-5)


def test_bones_carry_their_joints():
    rng = np.random.default_rng(0)
    motion = Motion(rng.normal(size=(5, 24, 3)), rng.normal(size=(5, 3)))
    carried = np.einsum("tjab,jb->tja", bone_transforms(motion), np.pad(rest_positions(SMPL_24), ((0, 0), (0, 1)), constant_values=1))
    np.testing.assert_allclose(carried, motion.positions(), atol=1e-5)


def test_real_motion_bends_without_tearing(body, real_motion):
    moved = skinned_vertices(body, real_motion[::90])
    a,b = body.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).T
    rest = np.linalg.norm(body.vertices[a]-body.vertices[b], axis=1)
    stretch = np.linalg.norm(moved[:, a]-moved[:, b], axis=-1)/np.maximum(rest, .004)
    assert np.quantile(stretch, .99)<1.7
