"""A loss of the user's own, named in a configuration: loaded once, its answers checked, its source part of a run.

coarse: f(student_logits [b, b], teacher_logits [b, b]) -> scalar
fine:   f(raw_weights [b, F], teacher_frame_logits [b, F], mask [b, F]) -> scalar
"""

import hashlib
import inspect
import traceback
from pathlib import Path

import torch
from torch import Tensor

from ..configs.schema import LossConfig
from ..errors import TrainingError
from .plugins import load_plugin

GROUP = "teachclip.losses"
KEYS = ("coarse_kind", "fine_kind")


def is_own(kind: str) -> bool:
    """Whether a kind of loss is `module:function` or `entry:name`, and none of ours."""
    return ":" in kind


class OwnLoss:
    """A loss function of the user's own.

    Args:
        kind: `module:function`, or `entry:name` of an entry point in `teachclip.losses`.
        key: the configuration's key, for messages.

    Raises:
        ConfigError: there is no such function, or it cannot be imported.
    """

    def __init__(self, kind: str, key: str) -> None:
        self.name = f"{key}: {kind}"
        self.function = load_plugin(kind.removeprefix("entry:"), GROUP, key)
        self._called = False

    def __call__(self, *arguments: Tensor) -> Tensor:
        """The loss, a scalar that depends on the first argument, the student's.

        Raises:
            TrainingError: the function raises, or gives something else. On a GPU only the first value is checked for
                being finite, as each look waits for the GPU; the run's own check finds the others.
        """
        try:
            loss = self.function(*arguments)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the user's function raises
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise TrainingError(
                f"{self.name} raised {type(error).__name__}: {error}", details=[f"{last.filename}:{last.lineno}"]
            ) from error
        if not isinstance(loss, Tensor) or loss.ndim:
            found = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise TrainingError(f"{self.name} gave {found}", hint="a loss is one number: a tensor without dimensions")
        if arguments[0].requires_grad and not loss.requires_grad:
            raise TrainingError(f"{self.name} does not depend on the student, so that it teaches nothing")
        if not (self._called and loss.is_cuda) and not loss.isfinite():
            raise TrainingError(f"{self.name} is not finite: {loss.item()}")
        self._called = True
        return loss

    def source_digest(self) -> str | None:
        """Hash of the file that the function stands in (not of what that imports); None when it has none."""
        try:
            source = inspect.getsourcefile(inspect.unwrap(self.function))
        except TypeError:  # an object that is called: the file of its class
            source = inspect.getsourcefile(type(self.function))
        return None if source is None else hashlib.blake2b(Path(source).read_bytes(), digest_size=16).hexdigest()


def loss_identity(config: LossConfig) -> dict[str, str]:
    """What a run's losses depend on beside the configuration: the source files of the user's own, by key.

    Raises:
        ConfigError: a loss of the user's own cannot be loaded.
    """
    kinds = {key: getattr(config, key) for key in KEYS}
    digests = {
        f"code of {key}": OwnLoss(kind, f"train.loss.{key}").source_digest()
        for key, kind in kinds.items()
        if is_own(kind)
    }
    return {key: digest for key, digest in digests.items() if digest is not None}
