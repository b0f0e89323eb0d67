"""A loss of the user's own, named in a configuration: loaded once, its answers checked (docs/guide/losses.md).

coarse: f(student_logits [b, v], teacher_logits [b, v]) -> scalar; v is b, or more with videos without captions
fine:   f(raw_weights [b, F], teacher_frame_logits [b, F], mask [b, F]) -> scalar

A class is made once, with options, and then called likewise; parameters of a torch module train with the network.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ....configs.schema import LossConfig
from ....errors import PluginError
from ....remedies import ReadPage, Remedy
from ...runtime.plugins import load_plugin, users_code

GROUP = "teachclip.losses"  # of entry points
_PAGE = Remedy("losses of one's own are shown there", ReadPage("guide/losses"))


def is_own(kind: str) -> bool:
    """Whether a kind of loss is `module:function` or `entry:name`, and none of ours."""
    return ":" in kind


class OwnLoss(nn.Module):
    """A loss of the user's own: a function, or an object of a class of theirs.

    Args:
        kind: `module:name`, or `entry:name` of an entry point in `teachclip.losses`.
        key: the configuration's key, for messages.
        options: keyword arguments, of the class, or of every call of the function.

    Raises:
        ConfigError: there is no such function or class, or it cannot be imported.
        PluginError: the class cannot be made.
    """

    def __init__(self, kind: str, key: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.title = f"{key}: {kind}"
        named = load_plugin(kind.removeprefix("entry:"), GROUP, key)
        self.function: Any
        if inspect.isclass(named):
            with users_code(f"{self.title}: making it", named):
                self.function = named(**(options or {}))
        else:
            self.function = partial(named, **options) if options else named
        self._named = (named,)  # which torch does not take for a second module
        self._called = False

    def forward(self, *arguments: Tensor) -> Tensor:
        """The loss, a scalar that depends on the first argument, the student's.

        Raises:
            PluginError: the function raises, or gives something else. Of values on a GPU only the first is looked at,
                since each look waits for the GPU; training's own check finds the others within some steps.
        """
        with users_code(self.title, *self._named):
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
        return _source_digest(*self._named)


def _source_digest(named: Callable[..., Any]) -> str | None:
    function = inspect.unwrap(named)
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
    own = {key: kind.removeprefix("entry:") for key, kind in kinds.items() if is_own(kind)}
    loaded = {key: load_plugin(name, GROUP, f"train.loss.{key}") for key, name in own.items()}
    return {f"code of {key}": _source_digest(named) or "unknown" for key, named in loaded.items()}
