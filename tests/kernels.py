"""Kernels and commands as copies: one process imports what lessons and commands import, and is copied for each of them.

A copy has a namespace, folder, environment and random state of its own, as a new process has. What it does not do again is import
torch, librosa, matplotlib and the package with its shapes checked, which took longer than most lessons. Where the system has no cheap
copy of a process (Windows), or copies badly (macOS), kernels and commands start as everywhere."""
import atexit
import gc
import importlib
import json
import os
import pkgutil
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

CAN_COPY = sys.platform=="linux"
HEAVY = ["ipykernel.kernelapp", "ipykernel.ipkernel", "matplotlib.pyplot", "matplotlib_inline.backend_inline", "scipy.signal", "scipy.stats", "scipy.optimize", "nbdev.showdoc", "fastcore.test", "torch", "torch._dynamo"]
NOTEBOOK_TOOLS = ["papermill", "papermill.cli", "nbconvert.exporters", "loky"]


# ---- the process that is copied

def import_everything(checked):
    "What lessons import, with shapes checked if they are; what commands import if not. An extra that is not installed is left to whoever needs it"
    sys.path.insert(0, str(Path(__file__).parent))
    if checked:
        import shapes # noqa: F401
        from jaxtyping import install_import_hook
        install_import_hook("audio2pose", "shapes.check")
    import audio2pose
    for name in HEAVY+sorted(module.name for module in pkgutil.walk_packages(audio2pose.__path__, "audio2pose.")):
        try: importlib.import_module(name)
        except ImportError: pass
    from audio2pose.audio import import_librosa
    from audio2pose.engine.notebooks import import_notebook_tool
    import_librosa()
    for name in [] if checked else NOTEBOOK_TOOLS: import_notebook_tool(name)
    sys.path.pop(0)


def become(cwd, env, outputs):
    "In the copy: a session, folder, environment and random state of its own"
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor,path in enumerate((os.devnull, *outputs)): os.dup2(os.open(path, os.O_RDWR), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    import numpy as np
    if os.path.exists("matplotlibrc"):
        import matplotlib
        matplotlib.rc_file("matplotlibrc") # It was imported in another folder
    random.seed()
    np.random.seed()


def end_with(asker):
    "As a kernel ends when whoever started it has ended"
    asker.recv(1)
    os._exit(1)


def copy_kernels(place):
    "Kernels that this process starts are copies, too"
    factory = KernelProvisionerFactory.instance()
    factory.provisioners["copy"],factory.default_provisioner_name,CopyProvisioner.kernels = CopyProvisioner,"copy",Kernels(place=place)


def run_kernel(asker, argv, cwd, env, place):
    "Be a kernel, as `python -m ipykernel_launcher` is"
    become(cwd, env, (os.devnull, os.devnull))
    copy_kernels(place)
    os.environ.pop("JPY_PARENT_PID", None) # Its parent is this file's process
    threading.Thread(target=end_with, args=(asker,), daemon=True).start()
    from ipykernel.kernelapp import IPKernelApp
    sys.argv = [sys.argv[0], *argv]
    IPKernelApp.launch_instance(argv)


def run_command(asker, argv, cwd, env, outputs, place):
    "Be `audio2pose` or `papermill`"
    become(cwd, env, outputs)
    copy_kernels(place)
    from papermill.cli import papermill

    from audio2pose.cli import main
    sys.argv,code = argv,1
    try: dict(audio2pose=main, papermill=papermill)[Path(argv[0]).name]()
    except SystemExit as end: code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        for stream in (sys.stdout, sys.stderr): stream.flush()
        asker.sendall(f"{code}\n".encode())


def end():
    "End the copy as an interpreter ends, but do not take apart what was copied: that touches, and so copies, a gigabyte, which took 3 s"
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr): stream.flush()
    os._exit(0)


def serve(place, checked):
    "A copy for each request, until whoever started this process has ended"
    import_everything(checked)
    gc.freeze() # Copies collect their own garbage only
    signal.signal(signal.SIGCHLD, signal.SIG_IGN) # Whoever has ended is gone
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while sys.stdin not in (ready := select.select([listener, sys.stdin], [], [])[0]):
        asker,_ = listener.accept()
        request = json.loads(asker.makefile().readline())
        if not os.fork():
            listener.close()
            asker.sendall(f"{os.getpid()}\n".encode())
            (run_command if "outputs" in request else run_kernel)(asker, **request, place=place)
            end()
        asker.close()


# ---- who asks for copies

class Kernels:
    "Starts the process that is copied, and asks it for kernels and commands"
    def __init__(self, checked=True, env=None, place=None):
        self.folder = None if place else tempfile.TemporaryDirectory()
        self.place = place or os.path.join(self.folder.name, "copies")
        if place: return # Somebody else has started it
        self.process = subprocess.Popen([sys.executable, __file__, self.place, *["checked"]*checked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert self.process.stdout.readline()=="ready\n", "what lessons import cannot be imported"

    def start(self, argv, cwd, env, **more):
        asker = socket.socket(socket.AF_UNIX)
        asker.connect(self.place)
        asker.sendall((json.dumps(dict(argv=argv, cwd=str(cwd), env=env, **more))+"\n").encode())
        return Copy(asker)

    def command(self, words, cwd, env):
        "`audio2pose` or `papermill`, as subprocess.Popen would start it"
        outputs = [tempfile.mkstemp()[1] for _ in range(2)]
        copy = self.start([str(word) for word in words], cwd, env, outputs=outputs)
        copy.outputs = outputs
        return copy

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)


class Copy:
    "A process that is a copy: a kernel as jupyter_client sees it, whose exit code nobody knows, or a command as subprocess does"
    stdin = stdout = stderr = returncode = None

    def __init__(self, asker):
        self.asker,self.lines = asker,asker.makefile() # Open as long as it shall live
        self.pid = int(self.lines.readline())

    def poll(self):
        said = self.returncode is None and select.select([self.asker], [], [], 0)[0]
        if said or self.returncode is None and not os.path.exists(f"/proc/{self.pid}"): self.returncode = int((said and self.lines.readline()) or -signal.SIGKILL)
        return self.returncode

    def wait(self, timeout=None):
        deadline = time.monotonic()+(timeout or 1e9)
        while self.poll() is None:
            if time.monotonic()>deadline: raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(.01)
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        said = tuple(Path(path).read_text() for path in self.outputs)
        for path in self.outputs: Path(path).unlink(missing_ok=True)
        return said

    def send_signal(self, number): os.kill(self.pid, number)
    def kill(self): self.send_signal(signal.SIGKILL)
    def terminate(self): self.send_signal(signal.SIGTERM)


class CopyProvisioner(LocalProvisioner):
    "Gives a lesson a copy instead of a new process"
    kernels = None

    async def launch_kernel(self, cmd, **options):
        self.cwd = options.get("cwd") or os.getcwd()
        self.process = self.kernels.start(cmd[cmd.index("-f"):], self.cwd, options["env"])
        self.pid = self.pgid = self.process.pid # It leads a session
        return self.connection_info

    @classmethod
    def load(cls): return cls


def copied(manager, kernels):
    "Let a kernel manager start copies"
    CopyProvisioner.kernels = kernels
    KernelProvisionerFactory.instance().provisioners["copy"] = CopyProvisioner
    manager.kernel_spec.metadata["kernel_provisioner"] = dict(provisioner_name="copy")


if __name__=="__main__": serve(sys.argv[1], "checked" in sys.argv[2:])
