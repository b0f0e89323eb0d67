"""The examples for SLURM and Kubernetes: scripts that a shell reads, documents that Kubernetes would take."""

import subprocess
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples/cluster"
DOCUMENTS = [
    (path.name, each) for path in sorted(EXAMPLES.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())
]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_shell_reads_it(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert path.read_text().startswith("#!/bin/bash\n")


@pytest.mark.extras
@pytest.mark.parametrize(("name", "document"), DOCUMENTS)
def test_kubernetes_would_take_it(name: str, document: dict[str, object]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    validate.validate(document, validate.latest_version(), strict=True)


def test_pods_share_the_shards_out_among_all() -> None:
    ((_, job),) = [each for each in DOCUMENTS if each[0] == "score.yaml"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][-1] == f"$(JOB_COMPLETION_INDEX)/{job['spec']['completions']}"
