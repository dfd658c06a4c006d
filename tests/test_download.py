"Downloads from a real web server that misbehaves in every way"
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import copies
import pytest

from audio2pose.core import InputError
from audio2pose.data.download import Source, load_sources, fetch_sources, Selection, download, unpack_archive, video_names
from audio2pose.data.fetch import RemoteFile, FetchOptions, fetch, fetch_all

QUICK = FetchOptions(tries=4, pause=.01, timeout=2.)


def box(kind, content=b""): return (8+len(content)).to_bytes(4, "big")+kind+content


FILM = box(b"ftyp", b"isom")+box(b"moov", bytes(1000))+box(b"mdat", os.urandom(300_000))


class Behaviour(BaseHTTPRequestHandler):
    "Serves FILM under any name; the folder of the path says how it misbehaves"
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): pass

    def answer(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        for name,value in headers.items(): self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        try: self.wfile.write(body)
        except OSError: pass
        if length not in (None, len(body)): self.close_connection = True

    def do_GET(self):
        kind,log = self.path.split("/")[1],self.server.log
        log.append((self.path, self.headers.get("Range"), self.headers.get("If-Range"), time.monotonic()))
        turn = sum(entry[0]==self.path for entry in log) # 1 at first
        start = int(self.headers["Range"].split("=")[1].rstrip("-")) if self.headers.get("Range") else 0
        tag = '"changed"' if kind=="changes" and turn>1 else '"film"'
        film = FILM
        if start and (kind=="noranges" or (self.headers.get("If-Range") or tag)!=tag): start = 0
        status,rest = (206,film[start:]) if start else (200,film)
        headers = dict(ETag=tag, Accept_Ranges="bytes") | (dict(Content_Range=f"bytes {start}-{len(film)-1}/{len(film)}") if start else {})
        if kind=="good": return self.answer(status, rest, **headers)
        if kind in ("drops", "noranges", "changes"): return self.answer(status, rest[:120_000] if turn<4 and kind=="drops" or turn<2 else rest, len(rest), **headers)
        if kind=="noTag": return self.answer(200, rest[:120_000] if turn<2 else rest, len(rest))
        if kind in ("403", "404", "500"): return self.answer(int(kind), b"<html>no</html>")
        if kind=="503": return self.answer(503, b"later", Retry_After=0) if turn<3 else self.answer(status, rest, **headers)
        if kind=="429": return self.answer(429, b"slower", Retry_After=1) if turn<2 else self.answer(status, rest, **headers)
        if kind=="truncates": return self.answer(200, film[:200_000]) # And says that is all
        if kind=="promises_more": return self.answer(status, rest, len(rest)+5000, **headers)
        if kind=="page": return self.answer(200, b"<html>This page has moved</html>")
        if kind=="hangs": return time.sleep(1.5)
        if kind=="slow":
            self.send_response(status)
            for name,value in headers.items(): self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            try:
                for k in range(0, len(rest), 10_000):
                    self.wfile.write(rest[k:k+10_000])
                    time.sleep(.03)
            except OSError: pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Behaviour)
    server.log,server.daemon_threads = [],True
    server.base = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def item(server, kind, folder, **rest): return RemoteFile(f"{server.base}/{kind}/film.mp4", folder/"film.mp4", **rest)


@pytest.mark.parametrize(["kind", "tries"], [("good", 1), ("drops", 3), ("noranges", 2), ("changes", 2), ("noTag", 2), ("503", 3), ("429", 2)])
def test_what_can_be_overcome_is_overcome(server, tmp_path, kind, tries):
    result = fetch(item(server, kind, tmp_path), QUICK)
    assert (result.state, result.tries)==("fetched", tries), result
    assert (tmp_path/"film.mp4").read_bytes()==FILM and result.sha256==hashlib.sha256(FILM).hexdigest()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()]==["film.mp4"]


def test_a_dropped_connection_goes_on_where_it_was(server, tmp_path):
    fetch(item(server, "drops", tmp_path), QUICK)
    assert [entry[1:3] for entry in server.log]==[(None, None), ("bytes=120000-", '"film"'), ("bytes=240000-", '"film"')]


def test_a_busy_server_is_given_the_time_it_asks_for(server, tmp_path):
    fetch(item(server, "429", tmp_path), QUICK)
    assert server.log[1][3]-server.log[0][3]>=1


def test_pauses_double(server, tmp_path):
    fetch(item(server, "500", tmp_path), FetchOptions(tries=4, pause=.1))
    pauses = [b[3]-a[3] for a,b in zip(server.log, server.log[1:])]
    assert all(pause>=wanted for pause,wanted in zip(pauses, (.1, .2, .4)))


@pytest.mark.parametrize(["kind", "why", "asked"], [
    ("403", "HTTP 403", 1), ("404", "HTTP 404", 1), ("500", "HTTP 500 (tried 4 times)", 4), ("truncates", "is not whole", 4), ("promises_more", "(tried 4 times)", 4),
    ("page", "box at byte 0", 4)])
def test_what_cannot_is_told_and_leaves_no_file(server, tmp_path, kind, why, asked):
    result = fetch(item(server, kind, tmp_path), QUICK)
    assert result.state=="failed" and why in result.reason and len(server.log)==asked
    assert not (tmp_path/"film.mp4").exists()


def test_nobody_answers(tmp_path, server):
    assert "timed out" in fetch(item(server, "hangs", tmp_path), FetchOptions(tries=2, pause=0, timeout=.2)).reason
    assert "refused" in fetch(RemoteFile("http://127.0.0.1:9/film.mp4", tmp_path/"film.mp4"), FetchOptions(tries=2, pause=0)).reason
    assert "nonsense" in fetch(RemoteFile("nonsense", tmp_path/"film.mp4"), QUICK).reason


def test_checksum(server, tmp_path):
    good,wrong = hashlib.sha256(FILM).hexdigest(),"0"*64
    assert "SHA-256 is" in fetch(item(server, "good", tmp_path, sha256=wrong), QUICK).reason and not (tmp_path/"film.mp4").exists()
    assert fetch(item(server, "good", tmp_path, sha256=good), QUICK).state=="fetched"
    asked = len(server.log)
    assert fetch(item(server, "good", tmp_path, sha256=good), QUICK).state=="kept" and len(server.log)==asked


def test_a_truncated_file_under_the_final_name_is_fetched_again(server, tmp_path):
    (tmp_path/"film.mp4").write_bytes(FILM[:1000])
    assert fetch(item(server, "good", tmp_path), QUICK).state=="fetched"
    assert (tmp_path/"film.mp4").read_bytes()==FILM


def test_rate_is_shared(server, tmp_path):
    items = [RemoteFile(f"{server.base}/good/{k}.mp4", tmp_path/f"{k}.mp4") for k in range(4)]
    clock = time.monotonic()
    results = fetch_all(items, tmp_path, FetchOptions(rate=1.5e6, jobs=4), progress=False)
    assert {result.state for result in results}=={"fetched"} and time.monotonic()-clock>.9*4*len(FILM)/1.5e6


def test_many_with_a_record_and_only_what_failed_again(server, tmp_path):
    kinds = ["good", "404", "drops", "truncates", "503"]
    items = [RemoteFile(f"{server.base}/{kind}/x.mp4", tmp_path/"videos"/f"{kind}.mp4") for kind in kinds]
    states = {result.file: result.state for result in fetch_all(items, tmp_path, QUICK, progress=False)}
    assert states=={"good.mp4": "fetched", "404.mp4": "failed", "drops.mp4": "fetched", "truncates.mp4": "failed", "503.mp4": "fetched"}
    kept = json.loads((tmp_path/"downloads.json").read_text())
    assert {entry["file"]: bool(entry["reason"]) for entry in kept}=={f"{kind}.mp4": kind in ("404", "truncates") for kind in kinds}
    server.log.clear()
    fetch_all(items, tmp_path, QUICK, progress=False)
    assert {entry[0].split("/")[1] for entry in server.log}=={"404", "truncates"}
    assert {entry["file"]: entry["state"] for entry in json.loads((tmp_path/"downloads.json").read_text())}==states


def command(*arguments): return [sys.executable, "-c", "import sys; from audio2pose.cli import main; sys.exit(main())", "data", "download", *map(str, arguments)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_resumed(server, tmp_path, number):
    "The part stays, is not under the final name, and is not fetched twice"
    (tmp_path/"list.txt").write_text("gLH_sBM_c01_d16_mLH0_ch01\n")
    line = command(tmp_path/"aist", "--accept-terms", "--what", "videos", "--base", f"{server.base}/slow", "--list", tmp_path/"list.txt")
    child = copies.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    part,end = tmp_path/"aist/videos/.partial/gLH_sBM_c01_d16_mLH0_ch01.mp4",time.monotonic()+60
    while not (part.exists() and part.stat().st_size>50_000) and time.monotonic()<end and child.poll() is None: time.sleep(.01)
    child.send_signal(number)
    _,said = child.communicate(timeout=60)
    assert child.returncode==(130 if number==signal.SIGINT else -9), said
    if not part.exists(): pytest.skip("it was quicker than the signal")
    had = part.stat().st_size
    assert had>50_000 and not (tmp_path/"aist/videos/gLH_sBM_c01_d16_mLH0_ch01.mp4").exists()
    done = copies.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode==0, done.stderr
    assert server.log[-1][1]==f"bytes={had}-"
    assert (tmp_path/"aist/videos/gLH_sBM_c01_d16_mLH0_ch01.mp4").read_bytes()==FILM


def test_full_disk_is_told(server, tmp_path, monkeypatch):
    from audio2pose.data import fetch as module
    def full(response, part, mode, limit, stop): raise OSError(28, "No space left on device")
    monkeypatch.setattr(module, "receive", full)
    assert fetch(item(server, "good", tmp_path), QUICK).reason=="cannot write it: No space left on device"
    assert not (tmp_path/"film.mp4").exists()


# ---- terms and names

def test_nothing_without_the_terms(server, tmp_path):
    with pytest.raises(InputError, match="terms_of_use.*--accept-terms"): download(tmp_path/"aist", selection=Selection(base=server.base))
    assert not server.log and not (tmp_path/"aist").exists()


def test_videos_of_a_genre():
    names = ["gLH_sBM_cAll_d16_mLH0_ch01", "gBR_sBM_c02_d04_mBR0_ch01", "not a name", "gLH_sGR_c01_d16_d17_mLH0_ch01"]
    assert len(video_names(names))==9
    assert video_names(names, "BR")==["gBR_sBM_c02_d04_mBR0_ch01"]
    assert len(video_names(names, None, [2]))==2


# ---- archives

def make_zip(path, files, links=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name,content in files.items(): archive.writestr(name, content)
        for name,target in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777<<16
            archive.writestr(info, target)


def make_tar(path, files, links=()):
    with tarfile.open(path, "w:gz") as archive:
        for name,content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
        for name,target in links:
            info = tarfile.TarInfo(name)
            info.type,info.linkname = tarfile.SYMTYPE,target
            archive.addfile(info)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_paths_of_archives_are_not_trusted(tmp_path, make):
    outside = tmp_path/"outside"
    outside.mkdir()
    make(tmp_path/"a.bin", {"top/motions/a.pkl": "aa", "../evil.txt": "x", "/etc/evil.txt": "x", "top/../../evil.txt": "x", "top\\..\\..\\evil.txt": "x", "top/ignore_list.txt": "n\n"},
         links=[("motions/link", str(outside))])
    count,refused = unpack_archive(tmp_path/"a.bin", tmp_path/"in/root", progress=False)
    assert count==2 and len(refused)==5
    assert sorted(str(path.relative_to(tmp_path/"in")) for path in (tmp_path/"in").rglob("*") if path.is_file())==["root/ignore_list.txt", "root/motions/a.pkl"]
    assert not list(tmp_path.rglob("evil*")) and not list(outside.iterdir())


def test_a_link_in_the_folder_is_not_followed(tmp_path):
    (tmp_path/"outside").mkdir()
    (tmp_path/"root").mkdir()
    (tmp_path/"root/motions").symlink_to(tmp_path/"outside")
    make_zip(tmp_path/"a.zip", {"motions/a.pkl": "aa"})
    assert unpack_archive(tmp_path/"a.zip", tmp_path/"root", progress=False)[0]==0 and not list((tmp_path/"outside").iterdir())


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_archives_that_break_off(tmp_path, make):
    make(tmp_path/"a.bin", {f"motions/{k}.pkl": os.urandom(500).hex() for k in range(50)})
    (tmp_path/"b.bin").write_bytes((tmp_path/"a.bin").read_bytes()[:-3000])
    try: count,refused = unpack_archive(tmp_path/"b.bin", tmp_path/"root", progress=False)
    except InputError as error: assert "download it again" in str(error)
    else: assert refused
    count,refused = unpack_archive(tmp_path/"a.bin", tmp_path/"root", progress=False)
    assert (count, refused)==(50, {}) and not list(tmp_path.rglob(".part-*"))
    assert all(path.stat().st_size==1000 for path in (tmp_path/"root/motions").iterdir())


def test_a_damaged_entry_costs_itself(tmp_path):
    with zipfile.ZipFile(tmp_path/"a.zip", "w") as archive:
        for k in range(3): archive.writestr(f"motions/{k}.pkl", f"content {k}"*100)
    content = bytearray((tmp_path/"a.zip").read_bytes())
    content[content.find(b"content 1")] ^= 255
    (tmp_path/"a.zip").write_bytes(content)
    count,refused = unpack_archive(tmp_path/"a.zip", tmp_path/"root", progress=False)
    assert count==2 and "CRC" in refused["motions/1.pkl"]
    assert sorted(path.name for path in (tmp_path/"root/motions").iterdir())==["0.pkl", "2.pkl"]


def test_unpacking_goes_on_where_it_was(tmp_path):
    make_zip(tmp_path/"a.zip", {f"motions/{k}.pkl": f"content {k}" for k in range(5)})
    unpack_archive(tmp_path/"a.zip", tmp_path/"root", progress=False)
    (tmp_path/"root/motions/3.pkl").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path/"root/motions").iterdir()}
    assert unpack_archive(tmp_path/"a.zip", tmp_path/"root", progress=False)==(5, {})
    assert before.items()<={path.name: path.stat().st_mtime_ns for path in (tmp_path/"root/motions").iterdir()}.items()


def test_bombs(tmp_path, monkeypatch):
    from audio2pose.data import download as module
    monkeypatch.setattr(module, "MAX_UNPACKED_BYTES", 1e6)
    make_zip(tmp_path/"a.zip", {"motions/a.pkl": "0"*2_000_000})
    with pytest.raises(InputError, match="would unpack to"): unpack_archive(tmp_path/"a.zip", tmp_path/"root", progress=False)


# ---- where the set is to be had

def archive_of(path, count):
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(count): archive.writestr(f"aist/motions/gBR_sBM_cAll_d04_mBR0_ch{k+1:02d}.pkl", b"1")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_sources_are_tried_until_one_is_whole(tmp_path):
    "One is dead, one is another file than promised, one is a part; the fourth is all, and the fifth is not asked"
    (tmp_path/"served").mkdir()
    hashes = {name: archive_of(tmp_path/"served"/f"{name}.zip", count) for name,count in dict(other=1, part=2, whole=3).items()}
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path/"served")) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{serving.server_port}"
        places = (Source("dead", f"{base}/none.zip", motions=3), Source("other", f"{base}/other.zip", sha256=hashes["whole"], motions=3), Source("page", page="https://example.org", motions=3),
                  Source("part", f"{base}/part.zip", motions=2), Source("whole", f"{base}/whole.zip", sha256=hashes["whole"], motions=3), Source("unasked", f"{base}/unasked.zip", motions=3))
        _,_,files,notes = fetch_sources(places, tmp_path/"aist", FetchOptions(tries=1), False)
        serving.shutdown()
    assert [note.split(":")[0] for note in notes]==["dead", "other", "page", "part", "whole"]
    assert "404" in notes[0] and "SHA-256" in notes[1] and "--from" in notes[2] and "2 motions of 2" in notes[3] and "3 motions of 3" in notes[4]
    assert all(file.state!="failed" for file in files) and len(list((tmp_path/"aist"/"motions").iterdir()))==3


def test_what_came_first_is_asked_for_again(tmp_path):
    "Where no hash is published the first download's is noted; another file from the same address is refused, however often it is tried"
    (tmp_path/"served").mkdir()
    digits = archive_of(tmp_path/"served"/"set.zip", 2)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path/"served")) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        places = (Source("only", f"http://127.0.0.1:{serving.server_port}/set.zip", motions=2),)
        ask = lambda: fetch_sources(places, tmp_path/"aist", FetchOptions(tries=1), False)
        assert digits in ask()[3][0]
        (tmp_path/"aist"/"archives"/"set.zip").unlink()
        whole = (tmp_path/"served"/"set.zip").read_bytes()
        archive_of(tmp_path/"served"/"set.zip", 1)
        for _ in range(2): assert [file.state for file in ask()[2]] in ([], ["failed"]) and not (tmp_path/"aist"/"archives"/"set.zip").exists()
        (tmp_path/"served"/"set.zip").write_bytes(whole)
        assert [file.state for file in ask()[2]]==["fetched"]
        serving.shutdown()


def test_lists_of_sources(tmp_path):
    assert load_sources()[0].url.startswith("https://") and max(source.motions for source in load_sources())==1365
    for text in ("{", "[1]", '[{"place": "x"}]', '[{"name": "x", "sha256": "12"}]'):
        (tmp_path/"sources.json").write_text(text)
        with pytest.raises(InputError, match="sources.json"): load_sources(tmp_path/"sources.json")
