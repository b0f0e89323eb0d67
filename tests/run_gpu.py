"""Every CUDA test and one table at the end: `make test-gpu`. Without a GPU it says so and fails."""

import sys
from pathlib import Path

import pytest
import torch
from teachclip.pipeline.cli.shell.output import Output
from teachclip.pipeline.cli.shell.tables import table


class Results:
    """Collects each test's outcome and time."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, float]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.rows.append((report.nodeid, report.outcome, report.duration))


def main() -> int:
    """Exit code: pytest's, or 1 when there is no GPU or a test was skipped."""
    output = Output()
    if not torch.cuda.is_available():
        output.failure("error", ["no GPU here (torch.cuda.is_available() is False): nothing was tested"], None, {})
        return 1
    results = Results()
    code = pytest.main(
        ["-m", "gpu", "-p", "no:cacheprovider", "-W", "default", str(Path(__file__).parent)], plugins=[results]
    )
    rows = [(name, outcome, f"{seconds:.2f} s") for name, outcome, seconds in results.rows]
    gpu = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    output.result(None, gpu, table("CUDA test", "result", "time", rows=rows))
    skipped = any(outcome == "skipped" for _, outcome, _ in results.rows)
    return int(code) or int(skipped)


if __name__ == "__main__":
    sys.exit(main())
