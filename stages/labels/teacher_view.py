"""What a teacher sees: frames, its own or the student's; or features of experts and words, as its checkpoint says."""

from collections.abc import Callable, Sequence

from torch import Tensor

from ...cache.storage.identity import identity_digest
from ...configs.schema import Config, ExpertsConfig, TeacherConfig
from ..data.dataset import Dataset
from ..data.teacher_frames import teacher_frames
from ..data.views import View, network_experts, open_words, words_of
from ..models.checkpoints.files import network_config_of


def teacher_experts(config: Config, teacher: TeacherConfig) -> ExpertsConfig | None:
    """The experts and words that a teacher sees; None for one that sees frames.

    Raises:
        CheckpointError: its checkpoint cannot be read.
    """
    path = config.teacher_checkpoint(teacher)
    network = None if path is None else network_config_of(path)
    return network.experts if network is not None and network.on_experts else None


def teacher_view(config: Config, teacher: TeacherConfig, students: View, dataset: Dataset) -> View:
    """What `teacher` sees of `dataset` (`texts_of`); what the student sees itself, where it is the same frames.

    Raises:
        CacheError: it has not been made, or is damaged.
        CheckpointError: its checkpoint cannot be read.
        ConfigError: its experts are of another width than the features.
    """
    experts = teacher_experts(config, teacher)
    if experts is None:
        return teacher_frames(config, teacher, students)
    return network_experts(config, experts, dataset, teacher.text)


def teacher_words(
    config: Config, teacher: TeacherConfig, dataset: Dataset
) -> Callable[[ExpertsConfig], tuple[Callable[[Sequence[str]], Tensor], str]]:
    """What `load_teacher` takes as `words`: those of the captions of `dataset`, opened when a teacher needs them."""

    def opened(experts: ExpertsConfig) -> tuple[Callable[[Sequence[str]], Tensor], str]:
        words = open_words(config, experts, dataset, teacher.text)
        return words_of(words, dataset), identity_digest(words.cache.identity)

    return opened
