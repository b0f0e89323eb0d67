"""Options that do not fit: one that a verb does not have, with the setting that is meant; one of no use here."""

import shlex
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from ....errors import ConfigError

# What others call a setting, as the word is here.
_ELSEWHERE = {
    "k": "search.top",
    "topk": "search.top",
    "top_k": "search.top",
    "learning_rate": "train.optim.lr",
    "bs": "train.batch_size",
    "num_workers": "prepare.workers",
    "fps": "prepare.sample_fps",
    "resolution": "prepare.image_size",
}


class Verbs(TyperGroup):
    """All verbs; an option that one of them does not have is told with the setting that does it."""

    def invoke(self, ctx: Any) -> Any:
        """As any group's, with more words."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            known: Any = error
            if hasattr(error, "option_name") and hasattr(error, "possibilities"):
                _explain(known)
            elif hasattr(error, "message") and str(known.message).startswith("Got unexpected extra argument"):
                known.message += _one_config(known.ctx)
            raise


def _explain(error: Any) -> None:
    """Name the setting in an error about an option that there is not."""
    command = error.ctx.command
    if not any("--set" in parameter.opts for parameter in command.params):
        return
    error.message = f"No such option: {error.option_name}"
    if meant := told_as_setting(error.option_name, command.name, bool(error.possibilities)):
        error.message += meant
        error.possibilities = None
    elif not error.possibilities:
        error.message += "; settings are changed by --set KEY=VALUE, and `teachclip config show CONFIG` lists them"


def told_as_setting(option: str, verb: str, near: bool) -> str:
    """`; it is a setting: --set KEY=VALUE`, or nothing.

    Args:
        near: the verb has options like it: only a setting of just this name is meant then.
    """
    word = option.lstrip("-").replace("-", "_")
    meant = _settings(word, verb, exact=True) or ([] if near else _settings(word, verb))
    value = _value(option)
    options = (f"--set {shlex.quote(f'{key}={value}')}" for key in meant)
    return f"; it is a setting: {' or '.join(options)}" if meant else ""


def _settings(word: str, verb: str, exact: bool = False) -> list[str]:
    """Settings of this name, those of the verb's own section alone where there are any."""
    from ....configs.loading import every_key

    keys = list(every_key())
    word = _ELSEWHERE.get(word, word)
    if word in keys:
        return [word]
    names = {key.rpartition(".")[2] for key in keys}
    close = get_close_matches(word, names, n=1, cutoff=0.75)
    name = word if exact else close[0] if close else ""
    found = [key for key in keys if key.rpartition(".")[2] == name]
    own = [key for key in found if key.startswith(f"{verb}.")]
    return (sorted(own, key=lambda key: key.count(".")) or found)[:3]


def _value(option: str) -> str:
    """What the command line gives the option."""
    for k, word in enumerate(sys.argv):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and k + 1 < len(sys.argv) and not sys.argv[k + 1].startswith("--"):
            return sys.argv[k + 1]
    return "VALUE"


def _one_config(ctx: Any) -> str:
    names = [parameter.metavar for parameter in ctx.command.params if parameter.param_type_name == "argument"]
    runs = "; runs are named by --run" if any("--run" in parameter.opts for parameter in ctx.command.params) else ""
    return f"; {ctx.command.name} takes {' '.join(filter(None, names)) or 'options alone'}{runs}"


def refuse_options(given: Mapping[str, object], where: Path, what: str, hint: str) -> None:
    """Refuse options that are no use with what lies at `where`.

    Args:
        given: the options by name; None where one was not given.
        what: of what they are options instead.

    Raises:
        ConfigError: one was given.
    """
    wrong = [option for option, value in given.items() if value is not None]
    if wrong:
        raise ConfigError(f"{', '.join(wrong)}: {what}", where=str(where), hint=hint)
