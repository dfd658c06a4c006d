"""Processes as copies: one process imports what lessons, commands and workers import, and is copied for each of them.

A copy has a namespace, folder, environment, random state, pipes and exit code of its own, as a new process has, and may be killed like one.
What it does not do again is import torch, librosa, matplotlib and the package, which took longer than most of what is tested in processes.
Where the system has no cheap copy of a process (Windows), or copies badly (macOS), processes start as everywhere; and so they do where a test
is about starting: of the installed command, of what is imported when, of variables that are read at an import."""
import atexit
import fcntl
import gc
import importlib
import io
import os
import pickle
import pkgutil
import random
import re
import runpy
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import types
from pathlib import Path

CAN_COPY = sys.platform=="linux" and hasattr(os, "pidfd_open")
HEAVY = ["ipykernel.kernelapp", "ipykernel.ipkernel", "matplotlib.pyplot", "matplotlib_inline.backend_inline", "scipy.signal", "scipy.stats", "scipy.optimize", "nbdev.showdoc", "fastcore.test", "torch", "torch._dynamo", "tabulate"]
LAUNCHERS = ["torch.distributed.run", "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler", "tensorboard", "torch.utils.tensorboard"]
NOTEBOOK_TOOLS = ["papermill", "papermill.cli", "nbconvert.exporters", "loky"]
PROGRAMS = dict(audio2pose="import sys; from audio2pose.cli import main; sys.exit(main())", papermill="import sys; from papermill.cli import papermill; sys.exit(papermill())")
READ_AT_START = re.compile("PYTHON|LD_|OMP_|MKL_|OPENBLAS_|KMP_|NUMBA_|HF_|MPL|XDG_|HOME") # Variables of the interpreter and of what is imported
SET_LATER = {"OMP_NUM_THREADS", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "LD_LIBRARY_PATH", "PYTHONBREAKPOINT"} # Those that a copy obeys, and those that scikit-learn, OpenCV and Ray set when they are imported
SESSION = "AUDIO2POSE_COPIES" # Variable with the folder of this session of tests, and the process that ends with it


# ---- the process that is copied

handlers = [] # What imports would have done at the exit of an interpreter

def import_everything(checked):
    "What lessons import, with shapes checked if they are; what commands import if not. An extra that is not installed is left to whoever needs it"
    sys.path.insert(0, str(Path(__file__).parent))
    if checked:
        import shapes # noqa: F401
        from jaxtyping import install_import_hook
        install_import_hook("audio2pose", "shapes.check")
    import audio2pose
    for name in HEAVY+LAUNCHERS*(not checked)+sorted(module.name for module in pkgutil.walk_packages(audio2pose.__path__, "audio2pose.")):
        try: importlib.import_module(name)
        except ImportError: pass
    from audio2pose.audio import import_librosa
    from audio2pose.engine.notebooks import import_notebook_tool
    import_librosa()
    for name in [] if checked else NOTEBOOK_TOOLS: import_notebook_tool(name)
    sys.path.pop(0)


def place_descriptors(received, numbers):
    "In the copy: open files at the numbers that they have where they come from, and no others"
    aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 800) for descriptor in received]
    os.closerange(3, 800)
    for descriptor,number in zip(aside, numbers): os.dup2(descriptor, number)
    for descriptor in aside: os.close(descriptor)


def open_streams():
    "Input and output of Python's, on what is now at their numbers"
    for name,number,mode in (("stdin", 0, "rb"), ("stdout", 1, "wb"), ("stderr", 2, "wb")):
        before,file = getattr(sys, name),open(number, mode, closefd=False)
        setattr(sys, name, io.TextIOWrapper(file, encoding=before.encoding, errors=before.errors, line_buffering=name=="stderr"))
        setattr(sys, f"__{name}__", getattr(sys, name))


def set_threads(count):
    "As many as a new process would have read from its environment; the process that is copied has one"
    if count==1: return
    import threadpoolctl
    import torch
    torch.set_num_threads(count)
    threadpoolctl.threadpool_limits(count)


def become(cwd, env, group):
    "In the copy: a process group, folder, environment and random state of its own"
    try: os.setpgid(0, group)
    except PermissionError: os.setpgid(0, 0) # Of another session
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    open_streams()
    set_threads(int(env.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))))
    tempfile.tempdir = None
    import multiprocessing.process

    import numpy as np
    multiprocessing.process.ORIGINAL_DIR = os.getcwd()
    if os.path.exists("matplotlibrc"):
        import matplotlib
        matplotlib.rc_file("matplotlibrc") # It was imported in another folder
    random.seed()
    np.random.seed()


def register_handlers():
    "Exit handlers of what has been imported"
    atexit.register = register
    for function,words,options in handlers: register(function, *words, **options)


def register_first(function, *words, **options):
    "The exit handler of a command, which begins before it imports; those of what it imports come after it"
    register(function, *words, **options)
    register_handlers()
    return function


def run_python(words):
    "What the interpreter does with its command line"
    while words[0] in ("-B", "-u"):
        option,*words = words
        if option=="-B": sys.dont_write_bytecode = True
        else:
            for stream in (sys.stdout, sys.stderr): stream.reconfigure(write_through=True)
    place = {"-c": "", "-m": os.getcwd()}.get(words[0], os.path.dirname(os.path.abspath(words[0])))
    sys.path[:1] = [] if os.environ.get("PYTHONSAFEPATH") else [place]
    sys.argv,main = list(words),types.ModuleType("__main__")
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main
    if words[0]=="-m":
        sys.argv[1:2] = []
        sys.modules.pop(words[1], None)
        runpy._run_module_as_main(words[1])
    elif words[0]=="-c":
        sys.argv[1:2] = []
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    else:
        main.__file__ = os.path.abspath(words[0])
        exec(compile(Path(words[0]).read_bytes(), words[0], "exec"), main.__dict__)


def use_terminal_bars():
    "The bars that tqdm chooses where no kernel was imported"
    import tqdm.asyncio
    import tqdm.auto
    chosen = tqdm.auto.tqdm
    for module in [*sys.modules.values()]:
        if getattr(module, "__dict__", {}).get("tqdm") is chosen: module.tqdm = tqdm.asyncio.tqdm_asyncio


def run_program(words):
    "An installed command, or Python"
    name = Path(words[0]).name
    use_terminal_bars()
    if name in PROGRAMS:
        if name=="audio2pose": atexit.register = register_first
        else: register_handlers()
        sys.path[:1] = [] if os.environ.get("PYTHONSAFEPATH") else [os.path.dirname(words[0])]
        sys.argv,sys.modules["__main__"] = list(words),types.ModuleType("__main__")
        exec(PROGRAMS[name], sys.modules["__main__"].__dict__)
    else:
        register_handlers()
        run_python(words[1:])


def end_with(asker):
    "As a kernel ends when whoever started it has ended"
    asker.recv(1)
    os._exit(1)


def run_kernel(words):
    "Be a kernel, as `python -m ipykernel_launcher` is"
    register_handlers()
    os.environ.pop("JPY_PARENT_PID", None) # Its parent is this file's process
    threading.Thread(target=end_with, args=(socket.socket(fileno=3),), daemon=True).start()
    from ipykernel.kernelapp import IPKernelApp
    IPKernelApp.close = lambda self: None # It may wait for a thread that has ended, until the kernel is killed after 3 s; sockets close with the copy
    inline = "MPLBACKEND" not in os.environ
    sys.argv = [sys.argv[0], *words]
    app = IPKernelApp.instance()
    app.initialize([*words, "--HistoryManager.enabled=False"])
    if inline: show_plots_inline()
    app.start()


def show_plots_inline():
    "What ipykernel asks for by a variable, which Matplotlib has read before"
    import matplotlib
    from matplotlib_inline import backend_inline
    matplotlib.use("module://matplotlib_inline.backend_inline")
    backend_inline._enable_matplotlib_integration()


def end(code):
    "End the copy as an interpreter ends, but do not take apart what was copied: that touches, and so copies, a gigabyte, which took 3 s"
    for last in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        try: last()
        except BaseException as error:
            if sys.unraisablehook is not sys.__unraisablehook__: sys.unraisablehook(types.SimpleNamespace(exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__, err_msg=None, object=last))
    if code==-signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def exit_code(run, words):
    "What a program ends with; what it did not catch is said as the interpreter says it"
    try: run(words)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int): return (error.code or 0)&255
        sys.stderr.write(f"{error.code}\n")
        return 1
    except BaseException as error:
        trace = error.__traceback__
        while trace.tb_next and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__): trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def answer(request, received):
    "In the copy: be what was asked for"
    try:
        place_descriptors(received, request["numbers"])
        become(request["cwd"], request["env"], request["group"])
        if request["before"]: pickle.loads(request["before"])()
        end(exit_code(run_kernel if request["kernel"] else run_program, request["words"]))
    finally: os._exit(1)


def serve(place, checked, session):
    "A copy for each request, until the session of tests has ended"
    global register
    register,atexit.register = atexit.register,lambda function, *words, **options: handlers.append((function, words, options)) or function
    import_everything(checked)
    copy_children()
    gc.collect()
    gc.freeze() # Copies collect their own garbage only
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    over,running = os.pidfd_open(session),{} # Of copies: what is readable when one has ended → its number and who asked for it
    while over not in (ready := select.select([listener, over, *running], [], [])[0]):
        for ended in set(ready)&set(running): report(ended, *running.pop(ended))
        if listener in ready and (made := copy(listener)): running[os.pidfd_open(made[0])] = made
    shutil.rmtree(os.path.dirname(place), ignore_errors=True)
    os._exit(0)


def report(ended, pid, asker):
    "Tell who asked for a copy how it ended"
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(ended)
    tell(asker, code)
    asker.close()


def copy(listener):
    "A copy for the next request: its number, and who asked for it; nothing if that was killed meanwhile"
    asker,_ = listener.accept()
    received = socket.recv_fds(asker, 1, 250)[1]
    try:
        with asker.makefile("rb") as lines: request = pickle.load(lines)
    except (EOFError, OSError, pickle.UnpicklingError):
        for descriptor in (*received, asker.detach()): os.close(descriptor)
        return None
    if request["kernel"]: received,request["numbers"] = [*received, os.dup(asker.fileno())],[*request["numbers"], 3]
    if not (pid := os.fork()): answer(request, received)
    for descriptor in received: os.close(descriptor)
    tell(asker, pid)
    return pid,asker


def tell(asker, number):
    "Send a number to who asked for a copy, who may be gone"
    try: asker.sendall(struct.pack("i", number))
    except OSError: pass


# ---- who asks for copies

ENVIRONMENT = {name: value for name,value in os.environ.items() if name!="AUDIO2POSE_SHARED"} # Before any test changes it
started = [] # Processes that are copied


def start_session():
    "Let this process and its children ask for copies; what is copied is started by whoever asks first, and ends with this process"
    if CAN_COPY: os.environ[SESSION] = f"{os.getpid()}:{tempfile.mkdtemp(prefix='copies-')}"


def end_session():
    "No more copies"
    if SESSION in os.environ: shutil.rmtree(os.environ.pop(SESSION).split(":", 1)[1], ignore_errors=True)


def connect(checked):
    "A connection to the process that is copied"
    from filelock import FileLock
    session,folder = os.environ[SESSION].split(":", 1)
    place,asker = os.path.join(folder, "checked" if checked else "plain"),socket.socket(socket.AF_UNIX)
    with FileLock(f"{place}.lock"):
        try: asker.connect(place)
        except OSError: # There is none yet
            Path(place).unlink(missing_ok=True)
            words = [sys.executable, __file__, place, session, *["checked"]*checked]
            started.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT|{"OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[1], start_new_session=True))
            assert started[-1].stdout.readline()=="ready\n", "what lessons import cannot be imported"
            asker.connect(place)
    return asker


def ask(words, cwd, env, descriptors, numbers, before=None, group=0, kernel=False, checked=False):
    "Begin a copy: its number, and the connection that will tell how it ends"
    asker = connect(checked)
    socket.send_fds(asker, [b"."], descriptors)
    asker.sendall(pickle.dumps(dict(words=words, cwd=os.fspath(cwd or os.getcwd()), env=dict(env), numbers=numbers, before=before, group=group, kernel=kernel)))
    return struct.unpack("i", receive(asker))[0],asker


def receive(asker):
    "A number; that of a kill if the process that is copied has ended"
    return asker.recv(4, socket.MSG_WAITALL) or struct.pack("i", -signal.SIGKILL)


def says_the_same(env):
    "Whether what a new process would read at its start is what the process that is copied has read"
    names = {name for name in {*env, *ENVIRONMENT} if READ_AT_START.match(name)}-SET_LATER
    return all(env.get(name)==ENVIRONMENT.get(name) for name in names)


def can_be_copied(words, env):
    "Whether a command is one that copies know, in an environment like theirs"
    if SESSION not in os.environ or SESSION not in env or not says_the_same(env): return False
    if Path(words[0])!=Path(sys.executable): return Path(words[0]).parent==Path(sys.executable).parent and Path(words[0]).name in PROGRAMS
    rest = [word for word in words[1:3] if word not in ("-B", "-u")]
    return bool(rest) and (rest[0] in ("-c", "-m") or not rest[0].startswith("-"))


class Ended:
    "How a copy ends"
    def __init__(self, asker): self.asker,self.code = asker,None

    def wait(self, timeout=None):
        "Its exit code, or None if it goes on"
        if self.code is None and select.select([self.asker], [], [], timeout)[0]:
            self.code = struct.unpack("i", receive(self.asker))[0]
            self.asker.close()
        return self.code


class Popen(subprocess.Popen):
    "A process as `subprocess.Popen` starts it; a copy, where a copy does the same"
    ended = None

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        words = [os.fsdecode(word) for word in ([args] if isinstance(args, (str, os.PathLike)) else args)]
        env = os.environ if env is None else env
        if not can_be_copied(words, env): return super()._execute_child(words, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)
        import cloudpickle # Comes with loky
        pipes = rest[3:9] # Both ends of stdin, stdout and stderr, -1 where there is no pipe
        theirs = [number if pipe==-1 else pipe for number,pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
        self.pid,asker = ask(words, cwd, env, theirs, [0, 1, 2], preexec_fn and cloudpickle.dumps(preexec_fn))
        self.ended,self._child_created = Ended(asker),True
        self._close_pipe_fds(*pipes)

    def _internal_poll(self, *words, **options):
        if self.ended is None: return super()._internal_poll(*words, **options)
        if self.returncode is None: self.returncode = self.ended.wait(0)
        return self.returncode

    def _wait(self, timeout):
        if self.ended is None: return super()._wait(timeout)
        if self.returncode is None: self.returncode = self.ended.wait(timeout)
        if self.returncode is None: raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


def run(words, input=None, capture_output=False, timeout=None, check=False, **options):
    "A process from begin to end, as `subprocess.run` runs it; a copy, where a copy does the same"
    if input is not None: options["stdin"] = subprocess.PIPE
    if capture_output: options |= dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with Popen(words, **options) as process:
        try: out,err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(words, process.returncode, out, err)
    if check: done.check_returncode()
    return done


# ---- children of this process

def copy_workers():
    "Worker processes that loky starts for this process are copies"
    from loky.backend import fork_exec, popen_loky_posix
    begin,poll,workers = fork_exec.fork_exec,popen_loky_posix.Popen.poll,{}

    def start_worker(words, descriptors, env=None):
        env = {**os.environ, **(env or {})}
        if not can_be_copied(words, env): return begin(words, descriptors, env)
        numbers = sorted({0, 1, 2, *map(int, descriptors)})
        pid,asker = ask(words, os.getcwd(), env, numbers, numbers, group=os.getpgid(0))
        workers[pid] = Ended(asker)
        return pid

    def poll_worker(self, flag=os.WNOHANG):
        if self.pid not in workers: return poll(self, flag)
        self.returncode = workers[self.pid].wait(0 if flag==os.WNOHANG else None)
        return self.returncode

    fork_exec.fork_exec,popen_loky_posix.Popen.poll = start_worker,poll_worker


def kernel_factory(checked=False):
    "What starts kernels, in this process, and knows copies by their name"
    from jupyter_client.provisioning import KernelProvisionerFactory
    factory = KernelProvisionerFactory.instance()
    factory.provisioners["checked copy" if checked else "copy"] = kernel_provisioner(checked)
    return factory


def copy_kernels():
    "Kernels that this process starts are copies"
    kernel_factory().default_provisioner_name = "copy"


def copy_ranks():
    "Processes that torchrun, begun by this process, starts are copies"
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
    subprocess_handler.Popen = Popen


def copy_children():
    "What a copy starts are copies, too"
    for begin in (copy_workers, copy_kernels, copy_ranks):
        try: begin()
        except ImportError: pass


class Kernel:
    "A kernel that is a copy, as jupyter_client sees it"
    stdin = stdout = stderr = None

    def __init__(self, words, cwd, env, checked):
        with open(os.devnull, "r+b") as nothing: self.pid,self.asker = ask(words, cwd, env, [nothing.fileno()]*3, [0, 1, 2], kernel=True, checked=checked)
        self.ended = Ended(self.asker)

    def poll(self): return self.ended.wait(0)
    def wait(self): return self.ended.wait()
    def send_signal(self, number): os.kill(self.pid, number)
    def kill(self): self.send_signal(signal.SIGKILL)
    def terminate(self): self.send_signal(signal.SIGTERM)


def kernel_provisioner(checked):
    "Gives a lesson or run a copy instead of a new process"
    from jupyter_client.provisioning import LocalProvisioner
    class CopyProvisioner(LocalProvisioner):
        async def launch_kernel(self, cmd, **options):
            if SESSION not in options["env"]: return await super().launch_kernel(cmd, **options)
            self.cwd = options.get("cwd") or os.getcwd()
            self.process = Kernel(cmd[cmd.index("-f"):], self.cwd, options["env"], checked)
            self.pid = self.pgid = self.process.pid # It leads a process group
            return self.connection_info

        @classmethod
        def load(cls): return cls
    return CopyProvisioner


def copied(manager, checked=True):
    "Let a kernel manager start copies, whose shapes are checked unless told"
    kernel_factory(checked)
    manager.kernel_spec.metadata["kernel_provisioner"] = dict(provisioner_name="checked copy" if checked else "copy")


def copying_shell(folder):
    "A shell for `!audio2pose ...` in lessons, in which that command is a copy"
    command = str(Path(sys.executable).with_name("audio2pose"))
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import copies; sys.exit(copies.run([{command!r}, *sys.argv[1:]]).returncode)"
    (shell := folder/"shell").write_text(f'#!/bin/sh\naudio2pose() {{ {shlex.join([sys.executable, "-c", program])} "$@"; }}\neval "$2"\n')
    shell.chmod(0o755)


if __name__=="__main__": serve(sys.argv[1], "checked" in sys.argv[3:], int(sys.argv[2]))
