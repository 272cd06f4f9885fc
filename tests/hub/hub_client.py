"""A program for the tests: runs pieces of Python code that come in on stdin, one JSON line each, and answers so.

Usage: `python hub_client.py` or, as where the project is not installed, `python hub_client.py stranger`. The names a
piece leaves behind are there for the next; what it gives to `tell(…)`, prints or raises is in the answer.
"""

import contextlib
import io
import json
import os
import sys
import traceback


class Refusal:
    """Makes `import antehoc_hf` fail, as where the package is not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "antehoc_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def answer(code, names, environment):
    told, output = [], io.StringIO()
    names["tell"] = told.append
    before = dict(os.environ)
    for name, value in environment.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    error = None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            exec(code, names)
        except Exception as raised:
            error = [type(raised).__name__, str(raised), traceback.format_exc()]
    os.environ.clear()
    os.environ.update(before)
    return {"told": told[-1] if told else None, "output": output.getvalue(), "error": error}


def main():
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
    channel, sys.stdout = sys.stdout, sys.stderr
    names = {"torch": torch}
    for line in questions:
        asked = json.loads(line)
        channel.write(json.dumps(answer(asked["code"], names | asked["values"], asked["environment"])) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
