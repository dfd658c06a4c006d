"The package as a stranger gets it: built, installed elsewhere, imported; and the lines of README.md"
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "librosa", "scipy", "numba", "matplotlib", "av", "soundfile", "pandas", "IPython", "nbdev", "fastcore", "execnb"}


def output(*command, **options):
    "What a command says; it must succeed"
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert not done.returncode, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


# ---- a wheel

@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "Built from a copy, so that no build folder is left here"
    folder = tmp_path_factory.mktemp("build")
    for name in ("audio2pose", "settings.ini", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        if (ROOT/name).is_dir(): shutil.copytree(ROOT/name, folder/"source"/name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT/name).is_file(): shutil.copy(ROOT/name, folder/"source")
    output(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, folder/"source")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    "A folder with the installed package, and an environment that sees it first"
    folder = tmp_path_factory.mktemp("elsewhere")
    output(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, wheel)
    return dict(cwd=folder, env=os.environ|{"PYTHONPATH": str(folder)})


@pytest.mark.slow
def test_wheel_holds_the_whole_package(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(path.relative_to(ROOT)) for path in (ROOT/"audio2pose").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert not wanted-inside, f"setup.py leaves out {sorted(wanted-inside)}"
    assert any(name.endswith("LICENSE") for name in inside)
    assert not [name for name in inside if name.startswith(("nbs/", "tests/"))]


@pytest.mark.slow
def test_wheel_is_small(wheel): assert wheel.stat().st_size<25e6


@pytest.mark.slow
def test_imported_from_elsewhere(elsewhere):
    "Every module, and every asset that code asks for"
    modules = [str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in (ROOT/"audio2pose").rglob("*.py") if path.stem!="__init__"]
    code = f"import audio2pose, importlib; [importlib.import_module(name) for name in {modules}]; print(audio2pose.__file__)"
    assert output(sys.executable, "-c", code, **elsewhere).strip()==str(elsewhere["cwd"]/"audio2pose"/"__init__.py")
    code = "from audio2pose.body.skin import load_body; from audio2pose.models.fact import FACT; print(len(load_body().vertices), FACT.from_pretrained().config.audio_dim)"
    assert output(sys.executable, "-c", code, **elsewhere).split()[1]=="35"


@pytest.mark.slow
def test_command_from_elsewhere(elsewhere):
    assert output(elsewhere["cwd"]/"bin"/"audio2pose", "--version", **elsewhere).startswith("audio2pose ")


# ---- light feet

def loaded(code):
    "Heavy modules in memory after `code`"
    said = output(sys.executable, "-c", f"{code}\nimport sys; print(sorted({HEAVY}&set(sys.modules)))")
    return said.splitlines()[-1]


def test_import_is_light(): assert loaded("import audio2pose")=="[]"


@pytest.mark.parametrize("line", [["--help"], ["dance", "--help"], ["--version"], ["dance", "--seed", "x"]])
def test_command_is_light(line): assert loaded(f"from audio2pose.cli import run; run({line})")=="[]"


@pytest.mark.benchmark
@pytest.mark.parametrize("command,bound", [([sys.executable, "-c", "import audio2pose"], .2), ([Path(sys.executable).with_name("audio2pose"), "--help"], .5)])
def test_start_up_time(command, bound):
    from time import perf_counter
    def seconds():
        begun = perf_counter()
        output(*command)
        return perf_counter()-begun
    assert min(seconds() for _ in range(5))<bound


def test_door_in_the_root():
    import audio2pose
    from audio2pose.generate import dance
    assert audio2pose.dance is dance and "dance" in dir(audio2pose)
    with pytest.raises(AttributeError, match="no attribute 'prance'"): audio2pose.prance


def test_version_is_the_settings():
    import audio2pose
    assert re.search(rf"^version\s*=\s*{re.escape(audio2pose.__version__)}$", (ROOT/"settings.ini").read_text(), re.M)


# ---- README.md

README = (ROOT/"README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.M|re.S)
LINES = [line.removeprefix("$ ").strip() for kind,block in BLOCKS if kind in ("sh", "bash", "shell", "console") for line in block.splitlines()]
LINES = [line.split("  #")[0].strip() for line in LINES if line.strip() and not line.startswith("#")]
COMMANDS = [part.strip() for line in LINES for part in line.split("&&")]
SONGS = (".mp3", ".wav", ".flac", ".ogg", ".m4a", ".mp4")
BRAKES = {"train": ["--steps", "1", "--batch", "1"], "data": ["--sequences", "4", "--seconds", "8"]} # Hours become seconds
ELSEWHERE = {"pip", "pytest", "git", "cd", "apt-get", "npm", "jupyter", "nbdev_export", "nbdev_clean", "python", "papermill", ".ci/run", "torchrun"} # Run by .ci/run, or by a person


def test_first_lines_are_those_of_the_ci():
    ci = (ROOT/".ci/run").read_text()
    assert LINES[:2]==['pip install -e . && audio2pose dance', 'pip install -e ".[dev]" && pytest'] and "from audio2pose import dance" in BLOCKS[1][1] # A user's lines stand above a contributor's
    for line in LINES[:2]: assert f"='{line}'" in ci


def test_no_command_is_unknown():
    assert not [command for command in COMMANDS if shlex.split(command)[0] not in ELSEWHERE|{"audio2pose"}]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    "A folder in which the commands of README.md are tried one after the other, as a reader would"
    folder = tmp_path_factory.mktemp("reader")
    t = np.arange(3*22_050)/22_050
    beat = .8*np.sin(2*np.pi*880*t)*np.exp(-(t%.5)/.02)
    said = [word for command in COMMANDS for word in shlex.split(command)]
    quoted = [text for _,block in BLOCKS for text in re.findall(r"""["']([^"'\n]+)["']""", block)]
    for name in {"SONG", *(word for word in said+quoted if word.endswith(SONGS) and not word.startswith("outputs"))}:
        assert not Path(name).is_absolute()
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder/name, beat, 22_050, format="WAV")
    return dict(cwd=folder, env=os.environ|{"AUDIO2POSE_DATA": str(folder/"data"), "MPLBACKEND": "agg"})


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("audio2pose ")])
def test_readme_command(command, reader):
    _,*words = shlex.split(command)
    said = output(Path(sys.executable).with_name("audio2pose"), *words, *BRAKES.get(words[0], []), **reader)
    if words[0]=="dance": assert {"dance.html", "motion.npz", *["dance.mp4", "song.wav"]*(words==["dance"])}<={path.name for path in Path(said.splitlines()[-1]).iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("code", [block for kind,block in BLOCKS if kind in ("python", "py")])
def test_readme_python(code, reader): output(sys.executable, "-c", code, **reader)
