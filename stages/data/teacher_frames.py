"""Which frame cache each teacher sees: the student's, or one of its own (`prepared`); or features of experts."""

from collections.abc import Mapping, Sequence

from ...cache.frames.cache import FrameCache
from ...cache.storage.identity import JSON
from ...configs.schema import Config, TeacherConfig
from ...errors import CacheError
from ...remedies import Prepare, Remedy
from .views import View, stored_experts


def teacher_frames(config: Config, teacher: TeacherConfig, students: View) -> FrameCache:
    """The frame cache that `teacher` sees: the student's, or its own.

    Raises:
        CacheError: its own is absent or incomplete; names the command that makes it.
    """
    folder = config.teacher_frames(teacher)
    if folder == config.frames_folder:
        return students if isinstance(students, FrameCache) else FrameCache.open(folder)
    try:
        return FrameCache.open(folder)
    except CacheError as error:
        advice = f"make the frames of teacher {teacher.name!r}, with its prepare.max_frames"
        hint = Remedy(advice, Prepare({"prepare.frames": str(teacher.prepared)}))
        raise CacheError(error.what, where=error.where, details=error.details, hint=hint) from error


class TeacherFrames:
    """What several teachers see, each frame cache opened once; a teacher that is not configured sees the prepared ones.

    Args:
        config: the configuration.
        names: the teachers.
        students: what the student sees.
        scored: what the scores of teachers were made from, as far as there are any: it tells those that see experts.

    Attributes:
        folders: of the frame cache of each teacher that sees frames; caches: by folder.
        views: everything that the student and the teachers see, each once.

    Raises:
        CacheError: something that a teacher sees is absent or incomplete.
    """

    def __init__(
        self,
        config: Config,
        names: Sequence[str],
        students: View,
        scored: Mapping[str, Mapping[str, JSON]] | None = None,
    ) -> None:
        known = {teacher.name: teacher for teacher in config.score.teachers}
        self._students, self._views = students, dict[str, View]()
        self.caches = {config.frames_folder: students} if isinstance(students, FrameCache) else {}
        self.folders = {}
        for name in names:
            if (experts := stored_experts(config, (scored or {}).get(name, {}))) is not None:
                self._views[name] = experts
                continue
            folder = config.teacher_frames(known[name]) if name in known else config.frames_folder
            if folder not in self.caches:
                own = teacher_frames(config, known[name], students) if name in known else FrameCache.open(folder)
                self.caches[folder] = own
            self.folders[name], self._views[name] = folder, self.caches[folder]
        others = {id(view): view for view in self._views.values() if view is not students}
        self.views: tuple[View, ...] = (students, *others.values())

    def __getitem__(self, name: str) -> View:
        return self._views[name]

    def others(self) -> dict[str, View]:
        """What teachers see that do not see what the student does."""
        return {name: view for name, view in self._views.items() if view is not self._students}
