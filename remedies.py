"""What helps against an error, by name and with what it needs. No command line stands here.

An error says in plain English what helps, and names the action that does it. Whoever shows the error spells the action
as its reader would give it: the command line by the table in pipeline/cli/shell/remedies.py, a notebook not at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

OTHER = "OTHER"  # stands for a name that the reader chooses

type Setting = str | int | float | bool
type Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class _WithSettings:
    """An action on the configuration at hand, with these settings, by dotted key, in place of its own."""

    settings: Settings = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return ", ".join(f"{key}={spelt(value)}" for key, value in self.settings.items())


class Change(_WithSettings):
    """Do the same again with these settings."""


class Prepare(_WithSettings):
    """Make frames of the videos."""


class MakeFeatures(_WithSettings):
    """Make or read features of experts and of captions."""


class Score(_WithSettings):
    """Let the teachers score what has no scores."""


class Train(_WithSettings):
    """Train, or go on training."""


class Evaluate(_WithSettings):
    """Measure a run."""


@dataclass(frozen=True)
class _Silent:
    """An action that the advice beside it describes well enough."""

    def __str__(self) -> str:
        return ""


class Prune(_Silent):
    """Remove frames of videos that the data no longer names."""


class AcceptPixels(_Silent):
    """Train with scores of the same data set prepared elsewhere."""


class Denoise(_Silent):
    """Make the mask of captions that training leaves out."""


class RepairScores(_Silent):
    """Find damaged shards of the score store, take them out and score them again."""


class CheckData(_Silent):
    """Say what is missing, damaged or odd about the data set."""


class ShowConfig(_Silent):
    """Show every setting with its value."""


@dataclass(frozen=True)
class Search(_Silent):
    """Find the videos that a sentence describes; the index is made where there is none."""

    sentence: str = "a dog runs on the beach"


@dataclass(frozen=True)
class IndexVideos(_Silent):
    """Make vectors of videos, in this folder."""

    folder: str


@dataclass(frozen=True)
class Template(_Silent):
    """Print a configuration to start from, or write it to this file."""

    file: str | None = None


@dataclass(frozen=True)
class RunSweep(_Silent):
    """Run the sweep of this file."""

    file: str


@dataclass(frozen=True)
class ReadPage(_Silent):
    """Read a page of the documentation, such as `guide/data`."""

    page: str

    def __str__(self) -> str:
        return f"docs/{self.page}.md"


@dataclass(frozen=True)
class MakeDemo(_Silent):
    """Make the demo in this folder."""

    folder: str


@dataclass(frozen=True)
class DescribeScores(_Silent):
    """Tell what a teacher's scores were made from."""

    store: str
    teacher: str


@dataclass(frozen=True)
class CompareScores(_Silent):
    """Compare a teacher's scores in two stores."""

    teacher: str
    store: str
    other: str


@dataclass(frozen=True)
class ExportScores(_Silent):
    """Pack a teacher's finished scores into a folder of their own."""

    store: str | None = None
    teacher: str | None = None


@dataclass(frozen=True)
class MergeScores(_Silent):
    """Bring the shards of another store into this one."""

    store: str
    other: str


@dataclass(frozen=True)
class RemoveScores(_Silent):
    """Remove a teacher's scores from a store."""

    store: str
    teacher: str


@dataclass(frozen=True)
class TidyScores(_Silent):
    """Remove what killed writers left in a store."""

    store: str


@dataclass(frozen=True)
class _Delete:
    path: str

    def __str__(self) -> str:
        return self.path


class DeleteFile(_Delete):
    """Delete this file."""


class DeleteFolder(_Delete):
    """Delete this folder with all that is in it."""


@dataclass(frozen=True)
class StartProcesses(_Silent):
    """Start the same as so many processes."""

    count: int


class Option(Enum):
    """What the same step may be asked for when it is done again."""

    PARTIAL = auto()  # an export of what is complete of unfinished tiles
    ANY_AGE = auto()  # a removal of what was written to lately, too
    REPLACE = auto()  # a conversion that replaces the file that is there
    PUBLISHED_NAMES = auto()  # a conversion to the names of the authors' code
    ARRAY_TASK = auto()  # scoring by the tasks of a job array, each its part
    TRACEBACK = auto()  # the whole traceback of an error
    MIXED = auto()  # a cluster whose nodes may differ


@dataclass(frozen=True)
class Again(_Silent):
    """Do the same again with this option."""

    option: Option


type Action = (
    Change | Prepare | MakeFeatures | Score | Train | Evaluate
    | Prune | AcceptPixels | Denoise | RepairScores | CheckData | ShowConfig | Search | IndexVideos | Template
    | MakeDemo | RunSweep | ReadPage | DescribeScores | CompareScores | ExportScores | MergeScores
    | RemoveScores | TidyScores | DeleteFile | DeleteFolder | StartProcesses | Again
)  # fmt: skip


@dataclass(frozen=True)
class Remedy:
    """What helps.

    Args:
        advice: in plain English, complete without the action.
        action: what does it.
        then: what is to be done after that.
        otherwise: what helps as well.
    """

    advice: str
    action: Action | None = None
    then: Action | None = None
    otherwise: "Remedy | None" = None

    @property
    def actions(self) -> tuple[Action, ...]:
        """What is to be done, in order; without what helps as well."""
        return tuple(action for action in (self.action, self.then) if action is not None)

    def __str__(self) -> str:
        """The advice, with the settings and paths that it is about."""
        about = ", ".join(dict.fromkeys(text for action in self.actions if (text := str(action))))
        own = f"{self.advice}: {about}" if about else self.advice
        return own if self.otherwise is None else f"{own}; or {self.otherwise}"


type Hint = Remedy | str


def spelt(value: Setting) -> str:
    """A setting's value as YAML spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
