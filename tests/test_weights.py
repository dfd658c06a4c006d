"Checkpoints that are broken, foreign, hostile or wrapped: one sentence each, nothing run, nothing changed."
import json
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from audio2pose.core import InputError, file_sha256
from audio2pose.models.fact import FACT, FACTConfig
from audio2pose.models.published import fetch
from audio2pose.models.weights import load_state_dict

TINY = FACTConfig(width=16, heads=2, mlp=32, motion_layers=1, audio_layers=1, cross_layers=1, standardise=True)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = FACT(TINY)
    model.save_pretrained(tmp_path/"model")
    return tmp_path/"model"


class Hostile:
    def __reduce__(self): return os.mkdir, ("it_ran",)


def test_round_trip(saved):
    back = FACT.from_pretrained(saved)
    assert back.config==TINY and not back.training
    torch.manual_seed(0)
    for name,tensor in FACT(TINY).state_dict().items(): assert torch.equal(back.state_dict()[name], tensor), name


def test_one_file_is_enough(saved, tmp_path):
    alone = (saved/"model.safetensors").rename(tmp_path/"alone.safetensors")
    assert FACT.from_pretrained(alone).config==TINY


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_wrapped_torch_files(saved, suffix):
    state = {f"module.{name}": tensor for name,tensor in FACT.from_pretrained(saved).state_dict().items()}
    torch.save({"step": 3, "model": state, "optimiser": {"lr": 1e-4}}, saved/f"train{suffix}")
    assert FACT.from_pretrained(saved/f"train{suffix}").config==TINY


@pytest.mark.parametrize("wrap", [
    lambda state: {"state_dict": state}, lambda state: {"model_pos": state}, lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"lr": .1}},
    lambda state: {"model": {f"module._orig_mod.{name}": tensor for name,tensor in state.items()}},
    lambda state: {"model": {f"_orig_mod.module.{name}": tensor for name,tensor in state.items()}},
    lambda state: {"n_averaged": torch.tensor(3)}|{f"module.{name}": tensor for name,tensor in state.items()},
    lambda state: {"net": {"state_dict": state}}, lambda state: {"model": state, "ema": {name: tensor+1 for name,tensor in state.items()}},
])
def test_whatever_is_around_the_weights(saved, wrap):
    "Keys, prefixes of DataParallel and torch.compile, averaged copies"
    right = load_state_dict(saved/"model.safetensors")
    torch.save(wrap(right), saved/"wrapped.pt")
    found = load_state_dict(saved/"wrapped.pt")
    assert found.keys()==right.keys() and all(torch.equal(found[name], right[name]) for name in right)


def test_a_checkpoint_that_contains_itself(saved):
    deep = {"a": torch.ones(1)}
    for _ in range(200): deep = {"model": deep}
    torch.save(deep, saved/"deep.pt")
    assert list(load_state_dict(saved/"deep.pt"))==["a"]


def test_loading_draws_no_random_numbers(saved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    FACT.from_pretrained(saved)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, .5, .99])
def test_cut_off_safetensors(saved, keep):
    whole = (saved/"model.safetensors").read_bytes()
    (saved/"model.safetensors").write_bytes(whole[:keep if isinstance(keep, int) else int(keep*len(whole))])
    with pytest.raises(InputError, match="fetch it again"): FACT.from_pretrained(saved)


@pytest.mark.parametrize("keep", [0, 10, .5, .9])
def test_cut_off_torch_file(saved, keep):
    torch.save(FACT.from_pretrained(saved).state_dict(), saved/"cut.pt")
    whole = (saved/"cut.pt").read_bytes()
    (saved/"cut.pt").write_bytes(whole[:keep if isinstance(keep, int) else int(keep*len(whole))])
    with pytest.raises(InputError, match="cut.pt"): FACT.from_pretrained(saved/"cut.pt")


def test_corrupted_header(saved):
    "A flipped byte in the header is refused, or lies in a remark and changes no weight"
    right = load_state_dict(saved/"model.safetensors")
    whole = bytearray((saved/"model.safetensors").read_bytes())
    refused = 0
    for place in range(0, 900, 37):
        whole[place] ^= 0x5a
        (saved/"model.safetensors").write_bytes(whole)
        whole[place] ^= 0x5a
        try: state = FACT.from_pretrained(saved).state_dict()
        except InputError: refused += 1
        else: assert all(torch.equal(state[name], tensor) for name,tensor in right.items())
    assert refused>5


@pytest.mark.parametrize("hostile", [{"model": Hostile()}, Hostile(), {"head.weight": Hostile()}])
@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_that_runs_code(saved, hostile, legacy, monkeypatch):
    monkeypatch.chdir(saved)
    torch.save(hostile, "hostile.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="hostile.pt.*not loaded"): FACT.from_pretrained("hostile.pt")
    assert not Path("it_ran").exists()


def test_pickle_named_safetensors(saved, monkeypatch):
    monkeypatch.chdir(saved)
    torch.save({"model": Hostile()}, "model.safetensors")
    with pytest.raises(InputError): FACT.from_pretrained(saved)
    assert not Path("it_ran").exists()


def test_misfits_are_named(saved):
    state = load_state_dict(saved/"model.safetensors")
    state["extra.weight"] = torch.ones(1)
    state["head.bias"] = torch.ones(7)
    del state["motion_pos"]
    save_file(state, saved/"model.safetensors")
    with pytest.raises(InputError, match=r"1 missing: motion_pos; 1 unexpected: extra.weight; 1 of another shape: head.bias \(7,\) for \(225,\)"):
        FACT.from_pretrained(saved)


def test_weights_of_another_model(saved):
    save_file({f"layer.{i}": torch.ones(1) for i in range(10)}, saved/"model.safetensors")
    with pytest.raises(InputError, match="10 unexpected: layer.0, layer.1, layer.2, …"): FACT.from_pretrained(saved)


def test_weights_that_are_not_numbers(saved):
    state = load_state_dict(saved/"model.safetensors")
    state["head.bias"][3] = torch.nan
    save_file(state, saved/"model.safetensors")
    with pytest.raises(InputError, match="not finite: head.bias"): FACT.from_pretrained(saved)


@pytest.mark.parametrize("text,why", [("{", "not JSON"), ("[]", "JSON object"), ('{"layers": 3}', "no layers"), ('{"width": "wide"}', "width must be int"),
                                      ('{"width": 17}', "heads"), ('{"fusion": "middle"}', "fusion must be"), ('{"width": true}', "width must be int")])
def test_bad_configurations(saved, text, why):
    (saved/"config.json").write_text(text)
    with pytest.raises(InputError, match=f"config.json.*{why}"): FACT.from_pretrained(saved)


def test_a_configuration_of_another_size(saved):
    (saved/"config.json").write_text(json.dumps({"width": 60_000, "heads": 2}))
    with pytest.raises(InputError, match="of another shape"): FACT.from_pretrained(saved)


@pytest.mark.parametrize("name", ["no/such/folder", "", "x.safetensors", "../up", "a b/c"])
def test_no_such_model(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError): FACT.from_pretrained(name)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(saved, monkeypatch):
    "The hub's side of huggingface_hub: `owner/name` has one commit; what was asked is listed"
    import huggingface_hub
    asked = []
    def about(url):
        asked.append(url)
        return huggingface_hub.HfFileMetadata(**{name: None for name in huggingface_hub.HfFileMetadata.__dataclass_fields__}|dict(commit_hash=COMMIT, size=12_300_000))
    def give(name, file, revision):
        asked.append((name, file, revision))
        return str(saved/file)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", about)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", give)
    return asked


@pytest.mark.parametrize("name,revision", [("someone/dancer@main", None), ("someone/dancer", "main")])
def test_hub(hub, name, revision, capsys):
    "All files are of the commit that was said, with its size, before anything came"
    assert FACT.from_pretrained(name, revision=revision).config==TINY
    assert hub[0].endswith("someone/dancer/resolve/main/model.safetensors")
    assert hub[1:]==[("someone/dancer", "config.json", COMMIT), ("someone/dancer", "model.safetensors", COMMIT)]
    assert f"someone/dancer (12.3 MB) from the Hugging Face hub: revision main is commit {COMMIT}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["data/modle", "someone/dancer"])
def test_a_mistyped_path_is_not_looked_up(hub, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"{name}: no such file or folder. If a model on the Hugging Face hub is meant"): FACT.from_pretrained(name)
    assert hub==[]


def test_hub_without_network(monkeypatch):
    import huggingface_hub
    def refuse(url): raise OSError("no network")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    with pytest.raises(InputError, match="hub does not give it .OSError: no network"): FACT.from_pretrained("someone/dancer@main")


class Quiet(SimpleHTTPRequestHandler):
    served = 0

    def log_message(self, *_): pass

    def do_GET(self):
        Quiet.served += 1
        super().do_GET()


@pytest.fixture
def server(saved):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(saved)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/model.safetensors"
    server.shutdown()
    server.server_close()


def test_fetch_once(saved, server, tmp_path):
    right = file_sha256(saved/"model.safetensors")
    Quiet.served = 0
    for _ in range(2): path = fetch(server, right, tmp_path/"kept")
    assert Quiet.served==1 and file_sha256(path)==right


def test_fetch_says_what_comes(saved, server, tmp_path, capsys):
    fetch(server, file_sha256(saved/"model.safetensors"), tmp_path/"kept")
    said = capsys.readouterr().err
    assert said.startswith("fetching model.safetensors (0.") and "MB) from 127.0.0.1 to " in said


def test_the_whole_hash_is_noted_at_the_first_download(saved, server, tmp_path, capsys):
    right = file_sha256(saved/"model.safetensors")
    path = fetch(server, right[:8], tmp_path/"kept")
    assert f"published is only {right[:8]}…; noted in SHA256SUMS for the next time: {right}" in capsys.readouterr().err
    assert (tmp_path/"kept"/"SHA256SUMS").read_text()==f"{right}  model.safetensors\n"
    fetch(server, right[:8], tmp_path/"kept")
    assert "noted" not in capsys.readouterr().err
    (tmp_path/"kept"/"SHA256SUMS").write_text(f"{right[:8]}{'0'*56}  model.safetensors\n") # As if another file with the same eight digits had come
    with pytest.raises(InputError, match="not the file that came first"): fetch(server, right[:8], tmp_path/"kept")
    assert path.is_file()


def test_fetch_refuses_another_file(server, tmp_path):
    with pytest.raises(InputError, match="not the expected file"): fetch(server, "0"*64, tmp_path/"kept")
    assert not list((tmp_path/"kept").iterdir())


def test_fetch_from_nowhere(tmp_path):
    with pytest.raises(InputError, match="cannot download"): fetch("http://127.0.0.1:9/x.pt", "0"*64, tmp_path)
    with pytest.raises(InputError, match="cannot download"): fetch("not an address", "0"*64, tmp_path)


def test_sha256_on_loading(saved):
    right = file_sha256(saved/"model.safetensors")
    assert FACT.from_pretrained(saved, sha256=right).config==TINY
    with pytest.raises(InputError, match="SHA-256"): FACT.from_pretrained(saved, sha256="0"*64)
