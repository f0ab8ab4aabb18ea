"""Many commands, one import of torch: a process that has imported it forks for each `python …` of a shell.

A shell whose PATH begins with `Preloaded.bin` finds `python`, `python3` and `torchrun` there: scripts that hand their
words, folder, environment, and where they read and write, to that process. What is run so is what would run without it,
six seconds sooner.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

HEAVY = (
    "torch",
    "torchvision",
    "poutyne",
    "torchmetrics.classification",
    "imgaug.augmenters",
    "matplotlib.pyplot",
)
HEAVY += "scipy.stats", "imagehash", "tyro", "pandas", "jinja2", "torch.distributed.run", "pytest"

CLIENT = """#!{python} -IS
import json, os, socket, sys
words = (["-m", "torch.distributed.run"] if sys.argv[0].endswith("torchrun") else []) + sys.argv[1:]
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    request = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(line, [len(request).to_bytes(8, "big")], [0, 1, 2])
    line.sendall(request)
    sys.exit(int(line.recv(8) or b"1"))
"""


def serve(address: str, client: str) -> None:
    """Imports what is heavy, then forks for each request until it is killed.

    Args:
        address: of the socket.
        client: what the forked ones take for Python, so that the scripts that they start are forked likewise.
    """
    for name in HEAVY:
        __import__(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    while True:
        line, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(line, client)
        line.close()


def answer(line: socket.socket, client: str) -> None:
    """Runs one command in a child, and says how it ended."""
    size, fds, _, _ = socket.recv_fds(line, 8, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += line.recv(1 << 16)
    child = os.fork()
    if child == 0:
        line.close()
        for i, fd in enumerate(fds):
            os.dup2(fd, i)
        sys.executable = client
        as_python(*json.loads(request))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    line.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def as_python(words: list[str], cwd: str, environment: dict[str, str]) -> None:
    """What `python words` does: a script, -m module, -c code, or a program from the standard input."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if "UNDRAWN" in environment:
        from matplotlib.figure import Figure
        from PIL import Image

        Figure.savefig = lambda _, file, **__: Image.new("RGB", (1, 1)).save(file, "PNG")
    words = [word for word in words if word != "-u"]
    sys.path[0] = cwd if words[0].startswith("-") else str(Path(words[0]).resolve().parent)
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] in ("-c", "-"):
            code = words.pop(1) if words[0] == "-c" else sys.stdin.read()
            sys.argv = words
            exec(compile(code, words[0], "exec"), {"__name__": "__main__"})
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Preloaded:
    """The process and its scripts, until the context is left."""

    def __init__(self) -> None:
        """Starts it; what it runs has one thread, since several commands may run at a time."""
        self.folder = tempfile.TemporaryDirectory(prefix="py")  # the path of a socket has to be short
        self.bin = Path(self.folder.name) / "bin"
        self.bin.mkdir()
        address = str(self.bin.parent / "s")
        for name in ("python", "python3", "torchrun"):
            (self.bin / name).write_text(CLIENT.format(python=sys.executable, address=address))
            (self.bin / name).chmod(0o755)
        words = [sys.executable, __file__, address, str(self.bin / "python")]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            words, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> "Preloaded":
        assert self.server.stdout
        assert self.server.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.communicate()
        self.folder.cleanup()


if __name__ == "__main__":
    serve(*sys.argv[1:])
