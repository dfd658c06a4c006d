"Motion files as people have them, and pickles that want more than numbers"
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from audio2pose.core import InputError
from audio2pose.motion import Motion, load_pickle


def refused(path, content, match):
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=match): load_pickle(path)
        assert tracemalloc.get_traced_memory()[1]<50e6
    finally: tracemalloc.stop()


def test_object_pointers_are_never_built(shared):
    with pytest.raises(InputError, match="not of plain numbers"): load_pickle(shared("cases/motions/dtype_pointer.pkl"))


def test_edge_is_known_by_its_keys(shared):
    motion = Motion.load(shared("cases/motions/edge_30fps.pkl"))
    assert motion.fps==30
    np.testing.assert_allclose(motion.positions(), load_pickle(shared("cases/motions/edge_30fps.pkl"))["full_pose"], atol=1e-5)


@pytest.mark.parametrize("content,match", [
    (b"\x80\x04B"+struct.pack("<I", 2**31-1), "not a whole pickle"), # Two billion bytes are promised
    (b"\x80\x04\x8e"+struct.pack("<Q", 2**62), "not a whole pickle"),
    (b"\x80\x04Nr"+struct.pack("<I", 2**32-1)+b".", None), # A note under the largest number
    (b"\x80\x04"+b"("*2000+b"l"*2000+b".", "not a whole pickle|lists"), # Deep
])
def test_memory_is_not_taken_on_a_promise(tmp_path, content, match):
    if match is not None: return refused(tmp_path/"x.pkl", content, match)
    (tmp_path/"x.pkl").write_bytes(content)
    assert load_pickle(tmp_path/"x.pkl") is None


def test_shape_and_bytes_must_agree(tmp_path):
    good = pickle.dumps(np.zeros((3, 4), np.float32), protocol=2)
    refused(tmp_path/"x.pkl", good.replace(b"K\x03K\x04", b"K\x7fK\x7f"), "has 48 bytes|not a whole pickle")


def test_objects_among_numbers(tmp_path):
    refused(tmp_path/"x.pkl", pickle.dumps(np.array([None, 1], object)), "not of plain numbers")
    refused(tmp_path/"x.pkl", pickle.dumps(dict(a={1, 2})), "it holds a set|it asks for")
