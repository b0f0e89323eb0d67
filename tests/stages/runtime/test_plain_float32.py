"""What is kept is computed in IEEE float32, whatever TF32 settings the process has; these stay as they were."""

import os
import subprocess
import sys

import pytest

SETTINGS = {
    "none": "",
    "old": "torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True",
    "new, each": "torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = 'tf32'",
    "new, for all": "torch.backends.fp32_precision = 'tf32'",
    "high": "torch.set_float32_matmul_precision('high')",
    "a container's": "",
}
SCRIPT = """
import sys
import torch
from teachclip.stages.runtime.device import plain_float32

exec(sys.argv[1])

def now():
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.benchmark, cudnn.deterministic

before = now()
with plain_float32(torch.device("cuda")):
    assert now() == ("ieee", "ieee", False, True), now()
    with plain_float32(torch.device("cuda")):
        assert now() == ("ieee", "ieee", False, True), now()
    assert now() == ("ieee", "ieee", False, True), now()
assert now() == before, (now(), before)
with plain_float32(torch.device("cpu")):
    assert now() == before
"""


@pytest.mark.parametrize("name", SETTINGS)
def test_products_and_convolutions_are_ieee_whatever_the_process_has_set(name: str) -> None:
    environment = dict(os.environ)
    if name == "a container's":
        environment["TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"] = "1"
    line = [sys.executable, "-W", "error", "-c", SCRIPT, SETTINGS[name]]
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
