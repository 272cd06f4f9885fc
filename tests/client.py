"""Another process for the tests: runs pieces of Python code that come in on stdin, one JSON line each, and answers so.

As a program: `python client.py` or, as where the project is not installed, `python client.py stranger`. The names a
piece leaves behind are there for the next; what it gives to `tell(…)`, prints or raises is in the answer.
"""

import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Client:
    """A process that runs pieces of code; starting one costs seconds, so that several tests share it.

    Args:
        home: its working folder, made here.
        environment: its variables of Hugging Face; none of this process's are handed on.
        arguments: of the program.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], *arguments: str) -> None:
        known = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        home.mkdir()
        self.home = home
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            cwd=home,
            env={**known, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, environment: dict[str, str | None] | None = None, **values: Any) -> Any:
        """Runs code, with names and environment variables of its own: `.answer`, `.output`, `.error`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(
            json.dumps({"code": code, "values": values, "environment": environment or {}}) + "\n"
        )
        self._process.stdin.flush()
        return SimpleNamespace(**json.loads(self._process.stdout.readline()))

    def command(self, *arguments: str, environment: dict[str, str | None] | None = None) -> tuple[int, str]:
        """`antehoc …`: exit status and everything it said."""
        code = "from antehoc_hf.cli import main\ntell(main(arguments))"
        done = self.run(code, environment, arguments=list(arguments))
        assert done.error is None, done.error[2]
        return done.answer, done.output

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()  # type: ignore[union-attr]


class Refusal:
    """Makes `import antehoc_hf` fail, as where the package is not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "antehoc_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class Said(io.TextIOBase):
    """In place of stdout and stderr, also for those that took hold of them when they were imported."""

    def __init__(self):
        self.heard = io.StringIO()

    def write(self, text):
        return self.heard.write(text)


def answer(code, names, environment, said):
    answers, said.heard = [], io.StringIO()
    names["tell"] = answers.append
    before = dict(os.environ)
    for name, value in environment.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    error = None
    try:
        exec(code, names)
    except Exception as raised:
        error = [type(raised).__name__, str(raised), traceback.format_exc()]
    os.environ.clear()
    os.environ.update(before)
    return {"answer": answers[-1] if answers else None, "output": said.heard.getvalue(), "error": error}


def main():
    channel, said = sys.stdout, Said()
    sys.stdout = sys.stderr = said
    if sys.argv[1:] == ["stranger"]:
        sys.meta_path.insert(0, Refusal)
    import torch

    torch.set_num_threads(1)
    if sys.argv[1:] != ["stranger"]:
        import antehoc_hf  # noqa: F401
        from antehoc_hf.model_cards import publish

        publish.WAITS = (0.05, 0.1, 0.2)
    # What is asked at a prompt finds nobody to answer.
    questions, sys.stdin = sys.stdin, open(os.devnull)  # noqa: SIM115
    names = {"torch": torch}
    for line in questions:
        asked = json.loads(line)
        channel.write(json.dumps(answer(asked["code"], names | asked["values"], asked["environment"], said)) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
