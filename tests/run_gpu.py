"""Every CUDA test and one table at the end: `make test-gpu`. Without a GPU it says so and fails.

First it says what it runs on: what makes numbers differ or memory run out is best known before the first test.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from teachclip.pipeline.cli.shell.output import Output
from teachclip.pipeline.cli.shell.tables import facts, table
from teachclip.stages.runtime.device import driver_version, precision_of

_TF32_VARIABLES = ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE")


class Results:
    """Collects each test's outcome and time."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, float]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.rows.append((report.nodeid, report.outcome, report.duration))


def preflight() -> Iterator[tuple[str, str]]:
    """Driver, builds, what a process computes float32 with by itself and inside ours, and free memory, by GPU."""
    yield "driver", driver_version() or "not told"
    yield "torch", f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    own = (
        f"products {torch.backends.cuda.matmul.fp32_precision}, convolutions {torch.backends.cudnn.conv.fp32_precision}"
    )
    asked = {name: os.environ[name] for name in _TF32_VARIABLES if name in os.environ}
    yield "float32 by itself", ", ".join([own, *(f"{name}={value}" for name, value in asked.items())])
    yield "float32 of teachers", precision_of(torch.device("cuda"))
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        yield f"GPU {number}", f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"


def main() -> int:
    """Exit code: pytest's, or 1 when there is no GPU or a test was skipped."""
    output = Output()
    if not torch.cuda.is_available():
        output.failure("error", ["no GPU here (torch.cuda.is_available() is False): nothing was tested"], None, {})
        return 1
    output.result(None, facts(*preflight()))
    results = Results()
    code = pytest.main(
        ["-m", "gpu", "-p", "no:cacheprovider", "-W", "default", str(Path(__file__).parent)], plugins=[results]
    )
    rows = [(name, outcome, f"{seconds:.2f} s") for name, outcome, seconds in results.rows]
    output.result(None, table("CUDA test", "result", "time", rows=rows))
    skipped = any(outcome == "skipped" for _, outcome, _ in results.rows)
    return int(code) or int(skipped)


if __name__ == "__main__":
    sys.exit(main())
