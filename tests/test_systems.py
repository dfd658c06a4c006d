"Names that Windows or macOS lack do not stand in the package"
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT/"audio2pose").rglob("*.py"))
ABSENT_MODULES = {"fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "posix", "syslog", "crypt"}
ABSENT_NAMES = {"fork", "forkpty", "forkserver", "getuid", "geteuid", "getgid", "killpg", "setsid", "getpgid", "mkfifo", "mknod", "wait3", "wait4", "sysconf", "nice", "uname",
                "SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "alarm", "setitimer", "sched_setaffinity", "preexec_fn", "start_new_session"}
ASKED_FOR = {"pthread_kill", "O_NOFOLLOW", "O_NONBLOCK", "sched_getaffinity"} # Used where hasattr or getattr has found them
PLACES = ("/tmp", "/dev/", "/proc/", "/etc/", "/usr/", "/home/")
GUARDED = {"/proc/cpuinfo", "/usr/share/mma/lib/stdlib"} # Looked at if they exist, with another way behind them


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_runs_on_every_system(path):
    source = path.read_text(encoding="utf-8")
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): found += [alias.name for alias in node.names if alias.name.split(".")[0] in ABSENT_MODULES]
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in ABSENT_MODULES: found.append(node.module)
        if isinstance(node, ast.Attribute) and node.attr in ABSENT_NAMES: found.append(node.attr)
        if isinstance(node, ast.keyword) and node.arg in ABSENT_NAMES: found.append(node.arg)
        if isinstance(node, ast.Attribute) and node.attr in ASKED_FOR and f'"{node.attr}"' not in source: found.append(f"{node.attr} without hasattr")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(PLACES) and node.value not in GUARDED: found.append(node.value)
        if isinstance(node, ast.Constant) and node.value in ("fork", "forkserver"): found.append(node.value)
    assert not found, f"{path.name}: {found}"


def test_the_walk_finds_what_it_looks_for(tmp_path):
    (tmp_path/"bad.py").write_text('import fcntl, os\nos.fork()\nopen("/dev/shm/x")\nimport signal\nsignal.pthread_kill\n')
    with pytest.raises(AssertionError, match="fcntl.*"): test_runs_on_every_system(tmp_path/"bad.py")
