"""Threads that wait sleep, so that a busy neighbour costs no more than its share; a user's own choice stays."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from teachclip.pipeline.cli import main
assert "torch" not in sys.modules  # it would have read the policy
sys.argv = ["teachclip", "--version"]
try:
    main.main()
finally:
    print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_told_otherwise_before_torch_is_loaded(own: str | None, expected: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {} if own is None else {"OMP_WAIT_POLICY": own}
    ended = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, expected), ended.stderr
