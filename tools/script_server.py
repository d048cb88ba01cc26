"""Runs Python scripts one after another, each in its own process that has torch already imported.

Importing torch and torchvision takes longer than a tiny run. The server imports them once and forks for every script:
the script starts in a fresh process, from its own folder, and no state passes from one script to the next. The server
itself imports no module of this project, so each script imports the modules next to it. Pictures are not drawn but
written as empty files, since drawing takes more than half of a tiny run in versions that use matplotlib.

`ScriptServer` starts the server as a child process and sends requests over pipes. If the system cannot fork, every
script is started in the usual way.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

# Libraries that the scripts import. If one is missing, the script that needs it will report that.
PRELOADED = (
    "torch",
    "torchvision",
    "torch._dynamo",
    "torch.utils.data",
    "torch.utils.tensorboard",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "sklearn.metrics",
)
# Environment variables that scripts do not receive: modules of another checkout must not be found, and each checkout
# should be compiled only once.
NOT_PASSED_ON = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
CACHE = "PYTHONPYCACHEPREFIX"


class ScriptError(Exception):
    """A script ended with an exit code other than 0; the message contains the last line that it wrote."""


class ScriptServer:
    """Runs each script in its own process; use it as a context manager.

    Args:
        cache: Folder for compiled modules, so that nothing is written next to the scripts.
        preloaded: Names of modules to import once.
    """

    def __init__(self, cache, preloaded=PRELOADED):
        # One thread, since sums of floats depend on the number of threads.
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON},
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        self._cache, self._preloaded = str(cache), preloaded
        self._process = None

    def __enter__(self):
        if hasattr(os, "fork"):
            self._process = subprocess.Popen(
                [sys.executable, __file__, self._cache, *self._preloaded],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
                text=True,
            )
        return self

    def __exit__(self, *_):
        if self._process is not None:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.terminate()
            self._process.wait()

    def run(self, words, cwd, log):
        """Run ``words`` (a script's absolute path and its flags) in the folder ``cwd``.

        Args:
            words: Script and flags, strings.
            cwd: Working folder.
            log: File to which the output of the script is appended.

        Raises:
            ScriptError: The script failed; the message contains the last line that it wrote.
        """
        if self._process is None:
            with open(log, "a", encoding="utf-8") as output:
                environment = {**self._environment, CACHE: self._cache}
                code = subprocess.run(
                    [sys.executable, *words], cwd=cwd, env=environment, stdout=output, stderr=output, check=False
                ).returncode
        else:
            try:
                self._process.stdin.write(json.dumps({"words": list(words), "cwd": str(cwd), "log": str(log)}) + "\n")
                self._process.stdin.flush()
                answer = self._process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if not answer:
                raise ScriptError("the process that starts the scripts has died")
            code = int(answer)
        if code:
            lines = Path(log).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ScriptError(f"exit code {code}: {lines[-1] if lines else 'no output'}")


def serve():
    """Run the scripts that are requested on stdin, one JSON line each; answer with their exit codes on stdout."""
    cache, *preloaded = sys.argv[1:]
    for name in preloaded:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Set only now, since the libraries above are already compiled in their own folders.
    sys.pycache_prefix = os.environ[CACHE] = cache
    # Exclude shared memory from garbage collection, which would copy it and take a second at the end of each script.
    gc.collect()
    gc.freeze()
    _draw_nothing()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _become(**request)
            return
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers.write(f"{code}\n")
        answers.flush()


def _draw_nothing():
    if "matplotlib.figure" in sys.modules:
        sys.modules["matplotlib.figure"].Figure.savefig = lambda figure, path, **_: Path(path).write_bytes(b"")


def _become(words, cwd, log):
    """Run the script in this (forked) process."""
    os.chdir(cwd)
    with open(os.devnull, "rb") as nothing, open(log, "ab") as output:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    tempfile.tempdir = None
    sys.argv = list(words)
    sys.path[0] = str(Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve()
