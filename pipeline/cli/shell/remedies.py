"""The one table that turns what helps into a command: each action as a person gives it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    r.Option.MIXED: "--mixed",
}


# Whose settings a step reads, so that the command for it carries no others; None for all.
_READS: dict[str, tuple[str, ...] | None] = {
    "prepare": ("work", "data", "prepare"),
    "data check": ("work", "data", "prepare"),
    "features": ("work", "data", "prepare", "features"),
    "score": ("work", "data", "prepare", "score"),
    "cache repair": ("work", "data", "prepare", "score"),
    "denoise": ("work", "data", "prepare", "score", "denoise", "train"),
    "train": ("work", "data", "prepare", "score", "train"),
    "evaluate": ("work", "data", "prepare", "evaluate"),
    "search": ("work", "data", "prepare", "score", "search"),
    "config show": None,
}


@dataclass(frozen=True)
class Given:
    """What a verb was given, for the commands that help.

    Attributes:
        config: its CONFIG, None where it has none; sets: the values of its --set.
        line: the words of the command, which is given again with other settings; none where it cannot be.
    """

    config: Path | None = None
    sets: Sequence[str] = ()
    line: Sequence[str] = ()

    def tell(self, hint: r.Hint) -> str:
        """What helps as a sentence, with the command that does it where there is one."""
        if not isinstance(hint, r.Remedy):
            return hint
        parts = [command(action, self) for action in hint.actions]
        commands = (" && " if all(part[0] != "-" for part in parts) else ", then with ").join(parts)
        sentence = f"{hint.advice}: {commands}" if commands else hint.advice
        return sentence if hint.otherwise is None else f"{sentence}; or {self.tell(hint.otherwise)}"

    def step(self, verb: str, settings: r.Settings | None = None, options: str = "") -> str:
        """The command of a step on the same CONFIG, with what it reads of the settings given and with `settings`."""
        sections, settings = _READS[verb], settings or {}
        sets = [one for one in self.sets if sections is None or one.split("=")[0].strip().split(".")[0] in sections]
        sets = [one for one in sets if one.split("=")[0].strip() not in settings]
        config = quoted(str(self.config or "CONFIG"))
        return f"teachclip {verb} {config}{options}{_sets([*sets, *_spelt(settings)])}"

    def without(self, settings: r.Settings) -> "Given":
        """The same, without what the command sets of these settings."""
        line = list(self.line)
        for at in reversed(range(len(line) - 1)):
            if line[at] == "--set" and line[at + 1].split("=")[0].strip() in settings:
                del line[at : at + 2]
        return replace(self, line=line)

    def again(self, options: str) -> str:
        """The same command with more options; the options alone where it is not known."""
        if not self.line:
            return options
        end = self.line.index("--") if "--" in self.line else len(self.line)
        rest = joined(self.line[end:])
        return f"{joined(self.line[:end])} {options}{f' {rest}' if rest else ''}"


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
    """An action on the command line; without the command that was given, what is to be added to it."""
    match action:
        case r.Change(settings):
            return given.without(settings).again(_sets(_spelt(settings)).lstrip())
        case r.Again(option):
            return given.again(_OPTIONS[option])
        case r.Prepare(settings):
            return given.step("prepare", settings)
        case r.Prune():
            return f"{given.step('prepare')} --prune"
        case r.MakeFeatures(settings):
            return given.step("features", settings)
        case r.Score(settings):
            return given.step("score", settings)
        case r.Denoise():
            return given.step("denoise")
        case r.Train(settings):
            return given.step("train", settings)
        case r.AcceptPixels():
            return f"{given.step('train')} --accept pixels"
        case r.Evaluate(settings):
            return given.step("evaluate", settings)
        case r.Search(sentence):
            return given.step("search", options=f' "{sentence}"')
        case r.IndexVideos(folder):
            return f"teachclip index VIDEOS --model MODEL --out {quoted(folder)}"
        case r.CheckData():
            return given.step("data check")
        case r.ShowConfig():
            return given.step("config show")
        case r.Template(file):
            return "teachclip config template" + (f" > {shlex.quote(file)}" if file else "")
        case r.RunSweep(file):
            return f"teachclip sweep {shlex.quote(file)}"
        case r.ReadPage(page):
            return f"teachclip docs {page}"
        case r.MakeDemo(folder):
            return f"teachclip demo {shlex.quote(folder)}"
        case r.RepairScores():
            return given.step("cache repair")
        case r.DescribeScores(store, teacher):
            return f"teachclip cache info {joined([store, teacher])}"
        case r.CompareScores(teacher, store, other):
            return f"teachclip cache diff {joined([f'{store}:{teacher}', f'{other}:{teacher}'])}"
        case r.ExportScores(store, teacher):
            return f"teachclip cache export {joined([store or 'STORE', teacher or 'TEACHER'])} OUT"
        case r.MergeScores(store, other):
            return f"teachclip cache merge {joined([store, other])}"
        case r.RemoveScores(store, teacher):
            return f"teachclip cache rm {joined([store, teacher])}"
        case r.TidyScores(store):
            return f"teachclip cache gc {shlex.quote(store)}"
        case r.DeleteFile(path):
            return _removal(path)
        case r.DeleteFolder(path):
            return _removal(path, folder=True)
        case r.StartProcesses(count):
            return given.step("train").replace("teachclip", f"torchrun --nproc-per-node={count} -m teachclip", 1)
        case _:
            assert_never(action)


def _removal(path: str, folder: bool = False) -> str:
    """At an address, by the program that its server's owner has for it."""
    if path.startswith("s3://"):
        return f"aws s3 rm {'--recursive ' * folder}{shlex.quote(path)}"
    return f"{'gcloud storage ' * path.startswith('gs://')}rm {'-r ' * folder}{shlex.quote(path)}"


def _spelt(settings: r.Settings) -> list[str]:
    return [f"{key}={r.spelt(value)}" for key, value in settings.items()]


def _sets(sets: Sequence[str]) -> str:
    return "".join(f" --set {quoted(one)}" for one in sets)
