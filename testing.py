"""What the tests of a plug-in call; nothing here is imported by a run."""

from .stages.models.frozen.check_teacher import check_teacher

__all__ = ["check_teacher"]
