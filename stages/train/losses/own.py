"""A loss of the user's own, named in a configuration: loaded once, its answers checked (docs/guide/losses.md).

coarse: f(student_logits [b, v], teacher_logits [b, v]) -> scalar; v is b, or more with videos without captions
fine:   f(raw_weights [b, F], teacher_frame_logits [b, F], mask [b, F]) -> scalar
"""

import hashlib
import inspect
from pathlib import Path

from torch import Tensor

from ....configs.schema import LossConfig
from ....errors import PluginError
from ....remedies import ReadPage, Remedy
from ...runtime.plugins import load_plugin, users_code

GROUP = "teachclip.losses"  # of entry points
_PAGE = Remedy("losses of one's own are shown there", ReadPage("guide/losses"))


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
        self.title = f"{key}: {kind}"
        self.function = load_plugin(kind.removeprefix("entry:"), GROUP, key)
        self._called = False

    def __call__(self, *arguments: Tensor) -> Tensor:
        """The loss, a scalar that depends on the first argument, the student's.

        Raises:
            PluginError: the function raises, or gives something else. Of values on a GPU only the first is looked at,
                since each look waits for the GPU; training's own check finds the others within some steps.
        """
        with users_code(self.title, self.function):
            loss = self.function(*arguments)
        if not isinstance(loss, Tensor) or loss.ndim:
            found = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise PluginError(f"{self.title} returned {found}, not a tensor that is one number", hint=_PAGE)
        if arguments[0].requires_grad and not loss.requires_grad:
            raise PluginError(f"{self.title} does not depend on the student, so that nothing is learnt", hint=_PAGE)
        if not (self._called and loss.is_cuda) and not loss.isfinite():
            raise PluginError(f"{self.title} is not finite: {loss.item()}", hint=_PAGE)
        self._called = True
        return loss

    def source_digest(self) -> str | None:
        """Hash of the file that the function stands in, not of what that imports; None when there is no such file."""
        function = inspect.unwrap(self.function)
        code = function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
        try:
            source = inspect.getsourcefile(code)
        except TypeError:  # built in
            return None
        if source is None or not Path(source).is_file():  # made by `exec`, or out of a zip file
            return None
        return hashlib.blake2b(Path(source).read_bytes(), digest_size=16).hexdigest()


def loss_identity(config: LossConfig) -> dict[str, str]:
    """What a run's losses depend on beside the configuration: the source file of each loss of the user's own.

    Raises:
        ConfigError: such a loss cannot be loaded.
    """
    kinds = {"coarse_kind": config.coarse_kind, "fine_kind": config.fine_kind}
    own = {key: OwnLoss(kind, f"train.loss.{key}") for key, kind in kinds.items() if is_own(kind)}
    return {f"code of {key}": loss.source_digest() or "unknown" for key, loss in own.items()}
