"""What the command line tells torch before it is loaded: waiting threads sleep, and no more of them than cores."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from teachclip.pipeline.cli import main
quota = int(sys.argv[1])
os.sched_getaffinity, main.cores = lambda pid: set(range(8)), lambda: quota
assert "torch" not in sys.modules  # it would have read the policy
sys.argv[1:] = ["--version"]
try:
    main.main()
finally:
    print(os.environ["OMP_WAIT_POLICY"], os.environ.get("OMP_NUM_THREADS"))
"""


@pytest.mark.parametrize(
    ("own", "cores", "expected"),
    [
        ({}, 8, "PASSIVE None"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, 8, "ACTIVE None"),
        ({}, 3, "PASSIVE 3"),
        ({"OMP_NUM_THREADS": "5"}, 3, "PASSIVE 5"),
    ],
)
def test_threads_sleep_and_keep_to_the_quota_unless_told_otherwise(
    own: dict[str, str], cores: int, expected: str
) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")} | own
    line = [sys.executable, "-c", SCRIPT, str(cores)]
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=200)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, expected), ended.stderr
