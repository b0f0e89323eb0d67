"""TeachText's RAdam and Ranger step by step, and its metrics: averaged ties, several captions, absent ones."""

import numpy as np
import pytest
import torch
from teachclip.configs.schema import OptimConfig
from teachclip.stages.retrieval.metrics import retrieval_metrics
from teachclip.stages.retrieval.teachtext import geometric_mean
from teachclip.stages.train.step.optimizer import build_optimizer
from torch import nn

files = pytest.mark.golden("original_experts_optim_metrics")


class _OneParameter(nn.Module):
    """A network of one parameter, whose name would spare it from decay elsewhere."""

    def __init__(self, value: np.ndarray, dtype: torch.dtype) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.from_numpy(value).to(dtype))

    @property
    def logit_scale(self) -> torch.Tensor:
        return torch.zeros(())


def _optimiser(golden, kind: str, network: _OneParameter):
    lr, decay = golden[f"{kind}/in/lr_wd"].tolist()
    config = OptimConfig(
        optimiser=kind, lr=lr, weight_decay=decay, schedule="per-epoch", clip_norm=None, tensor_clip_norm=None
    )
    return build_optimizer(network, config, len(golden[f"{kind}/in/grads"]))


@files
@pytest.mark.parametrize("kind", ["radam", "ranger"])
@pytest.mark.parametrize(("dtype", "out", "atol"), [(torch.float64, "out", 1e-12), (torch.float32, "out32", 2e-6)])
def test_trajectories(golden, kind: str, dtype: torch.dtype, out: str, atol: float) -> None:
    network = _OneParameter(golden[f"{kind}/in/param"], dtype)
    optimiser = _optimiser(golden, kind, network)
    for step, gradient in enumerate(golden[f"{kind}/in/grads"]):
        network.bias.grad = torch.from_numpy(gradient).to(dtype)
        optimiser.step()
        wanted = golden[f"{kind}/{out}/params"][step]
        np.testing.assert_allclose(network.bias.detach(), wanted, rtol=0, atol=atol, err_msg=f"step {step}")


@files
@pytest.mark.parametrize("kind", ["radam", "ranger"])
@pytest.mark.parametrize("stopped", [3, 7])
def test_a_resumed_run_takes_the_same_steps(golden, kind: str, stopped: int) -> None:
    gradients = golden[f"{kind}/in/grads"]

    def steps(network, optimiser, chosen) -> None:
        for gradient in chosen:
            network.bias.grad = torch.from_numpy(gradient).double()
            optimiser.step()

    first = _OneParameter(golden[f"{kind}/in/param"], torch.float64)
    optimiser = _optimiser(golden, kind, first)
    steps(first, optimiser, gradients[:stopped])
    again = _OneParameter(first.bias.detach().numpy(), torch.float64)
    resumed = _optimiser(golden, kind, again)
    resumed.load_state_dict(optimiser.state_dict())
    steps(again, resumed, gradients[stopped:])
    np.testing.assert_allclose(again.bias.detach(), golden[f"{kind}/out/params"][-1], rtol=0, atol=1e-12)


def _cases(golden) -> list[str]:
    return sorted({key.split("/")[0] for key in golden.keys if key.startswith("metrics")})


def _counted(found) -> dict[str, float]:
    return {
        "R1": found.r1,
        "R5": found.r5,
        "R10": found.r10,
        "R50": found.r50,
        "MedR": found.mdr,
        "MeanR": found.mnr,
        "geometric_mean_R1-R5-R10": geometric_mean(found),
    }


@files
@pytest.mark.parametrize("block", [2, 512])
def test_metrics(golden, block: int) -> None:
    """Absent captions are simply not there."""
    for case in _cases(golden):
        sims, there = golden[f"{case}/in/sims"], golden[f"{case}/in/query_masks"].astype(bool)
        videos, captions = there.shape
        assert sims.shape == (videos * captions, videos)
        own = np.repeat(np.arange(videos), captions)[there.ravel()]
        found = retrieval_metrics(sims[there.ravel()], own, videos, ties="teachtext", block=block)
        for way, metrics in found.items():
            for name, value in _counted(metrics).items():
                wanted = golden[f"{case}/out/{way}/{name}"].item()
                assert value == pytest.approx(wanted, abs=1e-9), f"{case} {way} {name}"


@files
def test_ties_make_a_difference(golden) -> None:
    """Some case is not the same by the rule that everything else here is counted by."""
    differing = 0
    for case in _cases(golden):
        sims, there = golden[f"{case}/in/sims"], golden[f"{case}/in/query_masks"].astype(bool)
        own = np.repeat(np.arange(there.shape[0]), there.shape[1])[there.ravel()]
        ways = [retrieval_metrics(sims[there.ravel()], own, len(there), ties=ties) for ties in ("teachtext", "fair")]
        differing += ways[0]["t2v"] != ways[1]["t2v"]
    assert differing
