"""Which frame cache each teacher sees: the student's, or one of its own (`prepared`)."""

from collections.abc import Sequence

from ...cache.frames.cache import FrameCache
from ...configs.schema import Config, TeacherConfig
from ...errors import CacheError
from ...remedies import Prepare, Remedy


def teacher_frames(config: Config, teacher: TeacherConfig, frames: FrameCache) -> FrameCache:
    """The frame cache that `teacher` sees: `frames`, or its own.

    Raises:
        CacheError: its own is absent or incomplete; names the command that makes it.
    """
    folder = config.teacher_frames(teacher)
    if folder == config.frames_folder:
        return frames
    try:
        return FrameCache.open(folder)
    except CacheError as error:
        advice = f"make the frames of teacher {teacher.name!r}, with its prepare.max_frames"
        hint = Remedy(advice, Prepare({"prepare.frames": str(teacher.prepared)}))
        raise CacheError(error.what, where=error.where, details=error.details, hint=hint) from error


class TeacherFrames:
    """The frame caches of several teachers, each opened once; a teacher that is not configured sees the student's.

    Args:
        config: the configuration.
        names: the teachers.
        frames: the student's frame cache.

    Attributes:
        folders: of each teacher's cache; caches: by folder, the student's among them.

    Raises:
        CacheError: a teacher's own frame cache is absent or incomplete.
    """

    def __init__(self, config: Config, names: Sequence[str], frames: FrameCache) -> None:
        known = {teacher.name: teacher for teacher in config.score.teachers}
        self._students = config.frames_folder
        self.caches = {self._students: frames}
        self.folders = dict.fromkeys(names, self._students)
        for teacher in (known[name] for name in names if name in known):
            folder = self.folders[teacher.name] = config.teacher_frames(teacher)
            if folder not in self.caches:
                self.caches[folder] = teacher_frames(config, teacher, frames)

    def __getitem__(self, name: str) -> FrameCache:
        return self.caches[self.folders[name]]

    def others(self) -> dict[str, FrameCache]:
        """The caches of teachers that do not see the student's."""
        return {name: self.caches[folder] for name, folder in self.folders.items() if folder != self._students}
