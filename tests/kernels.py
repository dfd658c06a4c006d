"""Kernels for lessons: one process imports what lessons import, and is copied for each of them.

A lesson has a kernel of its own as before: its own namespace, folder, environment and random state. What it does not do again is import
torch, librosa, matplotlib and the package with its shapes checked, which took longer than most lessons. Where the system has no cheap
copy of a process (Windows), or copies badly (macOS), kernels start as everywhere."""
import importlib
import json
import os
import pkgutil
import random
import signal
import subprocess
import sys
from pathlib import Path

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

CAN_COPY = sys.platform=="linux"
HEAVY = ["ipykernel.kernelapp", "ipykernel.ipkernel", "matplotlib.pyplot", "matplotlib_inline.backend_inline", "scipy.signal", "scipy.stats", "scipy.optimize", "nbdev.showdoc", "fastcore.test", "torch"]


# ---- the process that is copied

def import_everything():
    "What lessons import; an extra that is not installed is left to the lesson that needs it"
    sys.path.insert(0, str(Path(__file__).parent))
    from jaxtyping import install_import_hook
    install_import_hook("audio2pose", "shapes.check")
    import audio2pose
    for name in HEAVY+sorted(module.name for module in pkgutil.walk_packages(audio2pose.__path__, "audio2pose.")):
        try: importlib.import_module(name)
        except ImportError: pass
    from audio2pose.audio import import_librosa
    import_librosa()
    sys.path.pop(0)


def run_kernel(argv, cwd, env):
    "In the copy: be a kernel, as `python -m ipykernel_launcher` is"
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor,mode in ((0, os.O_RDONLY), (1, os.O_WRONLY)): os.dup2(os.open(os.devnull, mode), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.environ.pop("JPY_PARENT_PID", None) # Its parent is this file's process
    os.chdir(cwd)
    import numpy as np
    random.seed()
    np.random.seed()
    from ipykernel.kernelapp import IPKernelApp
    sys.argv = [sys.argv[0], *argv]
    IPKernelApp.launch_instance(argv)


def serve():
    "A kernel for each line that is read, until there are no more"
    import_everything()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN) # Whoever has ended is gone
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := sys.stdin.buffer.readline():
        process = os.fork()
        if not process: return run_kernel(**json.loads(line))
        sys.stdout.write(f"{process}\n")
        sys.stdout.flush()


# ---- who asks for copies

class Kernels:
    "Starts the process that is copied, and asks it for kernels"
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline()=="ready\n", "what lessons import cannot be imported"

    def start(self, argv, cwd, env):
        self.process.stdin.write(json.dumps(dict(argv=argv, cwd=str(cwd), env=env))+"\n")
        self.process.stdin.flush()
        return Copy(int(self.process.stdout.readline()))

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)


class Copy:
    "A kernel as jupyter_client sees it: a process, whose exit code nobody knows"
    stdin = stdout = stderr = None

    def __init__(self, pid): self.pid = pid

    def poll(self):
        try: os.kill(self.pid, 0)
        except ProcessLookupError: return 0

    def wait(self): return self.poll()
    def send_signal(self, number): os.kill(self.pid, number)
    def kill(self): self.send_signal(signal.SIGKILL)
    def terminate(self): self.send_signal(signal.SIGTERM)


class CopyProvisioner(LocalProvisioner):
    "Gives a lesson a copy instead of a new process"
    kernels = None

    async def launch_kernel(self, cmd, **options):
        self.process = self.kernels.start(cmd[cmd.index("-f"):], options["cwd"], options["env"])
        self.pid = self.pgid = self.process.pid # It leads a session
        self.cwd = options["cwd"]
        return self.connection_info

    @classmethod
    def load(cls): return cls


def copied(manager, kernels):
    "Let a kernel manager start copies"
    CopyProvisioner.kernels = kernels
    KernelProvisionerFactory.instance().provisioners["copy"] = CopyProvisioner
    manager.kernel_spec.metadata["kernel_provisioner"] = dict(provisioner_name="copy")


if __name__=="__main__": serve()
