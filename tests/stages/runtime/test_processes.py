"""What is left behind where one of several processes fails."""

from types import SimpleNamespace

import pytest
from teachclip.errors import StoppedEarly
from teachclip.stages.runtime import processes


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A group on GPUs that are not there, which writes down that it was aborted."""
    told: list[str] = []
    world = SimpleNamespace(abort=lambda: told.append("aborted"))
    stand_in = SimpleNamespace(get_backend_config=lambda: "cpu:gloo,cuda:nccl", group=SimpleNamespace(WORLD=world))
    monkeypatch.setattr(processes, "dist", stand_in)
    return told


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_an_error_ends_what_the_gpu_waits_for(ended: list[str], error: BaseException) -> None:
    with pytest.raises(type(error)), processes._gpus_let_go():
        raise error
    assert ended == ["aborted"]


def test_what_all_have_agreed_on_is_no_error(ended: list[str]) -> None:
    with pytest.raises(StoppedEarly), processes._gpus_let_go():
        raise StoppedEarly(3, 9, None)
    with processes._gpus_let_go():
        pass
    assert ended == []


def test_on_cpus_nothing_is_aborted(ended: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.dist, "get_backend_config", lambda: "cpu:gloo,cuda:gloo")
    with pytest.raises(ValueError, match="wrong"), processes._gpus_let_go():
        raise ValueError("wrong")
    assert ended == []
