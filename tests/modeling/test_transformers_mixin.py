"""transformers' own `ModelTesterMixin` on the three heads and both kinds of map.

transformers' wheel has no tests: unpack its sdist, install `parameterized`, and set `TRANSFORMERS_TESTS_DIR` to the
folder with `test_modeling_common.py`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What the mixin imports and no sdist has.
STUBS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
}


@pytest.mark.slow
def test_the_models_pass_the_tests_of_transformers(tmp_path):
    source = os.environ.get("TRANSFORMERS_TESTS_DIR")
    if not source:
        pytest.skip("TRANSFORMERS_TESTS_DIR names no folder with the tests of transformers' sdist")
    pytest.importorskip("parameterized")
    package = tmp_path / "mixin"
    for name, content in STUBS.items():
        (package / name).parent.mkdir(parents=True)
        (package / name).write_text(content)
        (package / name).with_name("__init__.py").touch()
    (package / "__init__.py").touch()
    shutil.copy(Path(source) / "test_modeling_common.py", package)
    shutil.copy(Path(__file__).with_name("mixin_cases.py"), package / "test_ours.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", package / "test_ours.py", "-q", "-rs", "--import-mode=prepend", "--tb=short"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    print(done.stdout[-60_000:])
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    summary = done.stdout.splitlines()[-1]
    assert int(re.search(r"(\d+) passed", summary)[1]) >= 200, summary
    skips = re.findall(r"^SKIPPED \[\d+\] \S+ (.+)$", done.stdout, re.MULTILINE)
    assert skips
    assert all(reason.strip() for reason in skips)
