"""The one table that turns what helps into a command: each action as a person gives it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from .... import remedies as r
from ....errors import printable

_BACKSLASH = "\\"
_OPTIONS = {
    r.Option.PARTIAL: "--partial",
    r.Option.ANY_AGE: "--age 0",
    r.Option.REPLACE: "--force",
    r.Option.PUBLISHED_NAMES: "--names published",
    r.Option.ARRAY_TASK: "--shard $SLURM_ARRAY_TASK_ID/8",
    r.Option.TRACEBACK: "--debug",
}


@dataclass(frozen=True)
class Given:
    """The configuration that a verb was given: its CONFIG, None where it has none, and the values of its --set."""

    config: Path | None = None
    sets: Sequence[str] = ()

    def __str__(self) -> str:
        return quoted(str(self.config or "CONFIG")) + "".join(f" --set {quoted(one)}" for one in self.sets)

    def tell(self, hint: r.Hint) -> str:
        """What helps as a sentence, with the command that does it where there is one."""
        if not isinstance(hint, r.Remedy):
            return hint
        commands = " && ".join(command(action, self) for action in hint.actions)
        sentence = f"{hint.advice}: {commands}" if commands else hint.advice
        return sentence if hint.otherwise is None else f"{sentence}; or {self.tell(hint.otherwise)}"


def quoted(text: str) -> str:
    """`text` as a word of a command line; bytes that are not UTF-8 as bash spells them."""
    shown = printable(text)
    if shown == text:
        return shlex.quote(text)
    escaped = printable(text.replace(_BACKSLASH, 2 * _BACKSLASH).replace("'", f"{_BACKSLASH}'"))
    return f"$'{escaped}'"


def joined(words: Sequence[str]) -> str:
    """`words` as a command line."""
    return " ".join(map(quoted, words))


def command(action: r.Action, given: Given) -> str:
    """An action on the command line: a whole command, or what is added to the one that was given."""
    match action:
        case r.Change(settings):
            return _sets(settings).lstrip()
        case r.Again(option):
            return _OPTIONS[option]
        case r.Prepare(settings):
            return f"teachclip prepare {given}{_sets(settings)}"
        case r.Prune():
            return f"teachclip prepare {given} --prune"
        case r.Score(settings):
            return f"teachclip score {given}{_sets(settings)}"
        case r.Denoise():
            return f"teachclip denoise {given}"
        case r.Train(settings):
            return f"teachclip train {given}{_sets(settings)}"
        case r.AcceptPixels():
            return f"teachclip train {given} --accept pixels"
        case r.Evaluate(settings):
            return f"teachclip evaluate {given}{_sets(settings)}"
        case r.Search(sentence):
            return f'teachclip search {given} "{sentence}"'
        case r.CheckData():
            return f"teachclip data check {given}"
        case r.ShowConfig():
            return f"teachclip config show {given}"
        case r.Template(file):
            return "teachclip config template" + (f" > {shlex.quote(file)}" if file else "")
        case r.MakeDemo(folder):
            return f"teachclip demo {shlex.quote(folder)}"
        case r.RepairScores():
            return f"teachclip cache repair {given}"
        case r.DescribeScores(store, teacher):
            return f"teachclip cache info {shlex.join([store, teacher])}"
        case r.CompareScores(teacher, store, other):
            return f"teachclip cache diff {shlex.join([f'{store}:{teacher}', f'{other}:{teacher}'])}"
        case r.ExportScores(store, teacher):
            return f"teachclip cache export {shlex.join([store or 'STORE', teacher or 'TEACHER'])} OUT"
        case r.MergeScores(store, other):
            return f"teachclip cache merge {shlex.join([store, other])}"
        case r.RemoveScores(store, teacher):
            return f"teachclip cache rm {shlex.join([store, teacher])}"
        case r.TidyScores(store):
            return f"teachclip cache gc {shlex.quote(store)}"
        case r.DeleteFile(path):
            return f"rm {shlex.quote(path)}"
        case r.DeleteFolder(path):
            return f"rm -r {shlex.quote(path)}"
        case r.StartProcesses(count):
            return f"torchrun --nproc-per-node={count} -m teachclip train {given}"
        case _:
            assert_never(action)


def _sets(settings: r.Settings) -> str:
    return "".join(f" --set {shlex.quote(f'{key}={r.spelt(value)}')}" for key, value in settings.items())
