"""Section `shapes`: the demo's rendered data set."""

from typing import Annotated

from pydantic import Field

from .section import Positive, Section, Seed


class ShapesConfig(Section):
    """The demo's data set: clips of coloured shapes that move one after the other, and pictures of such shapes."""

    train_clips: Positive = Field(400, description="The student's own clips to train on.")
    train_captions: Annotated[int, Field(ge=1, le=5)] = Field(1, description="Captions of each of them.")
    val_clips: Positive = Field(400, description="Clips to validate on, five captions each.")
    test_clips: Positive = Field(400, description="Clips to test on, five captions each.")
    teacher_clips: Annotated[int, Field(ge=0)] = Field(
        3000, description="Somebody else's clips, of which the teacher learns, five captions each."
    )
    uncaptioned_clips: Annotated[int, Field(ge=0)] = Field(
        1600, description="The student's own clips without captions."
    )
    size: Annotated[int, Field(ge=64, multiple_of=2)] = Field(64, description="Width and height of clips, in pixels.")
    seed: Seed = Field(7, description="Seed of everything drawn.")
    pictures: Positive = Field(20_000, description="Captioned single pictures that the trunk is pre-trained on.")
    picture_steps: Positive = Field(1600, description="Steps of the pre-training.")
    picture_batch: Annotated[int, Field(gt=1)] = Field(128, description="Pictures per step of the pre-training.")
    picture_lr: Annotated[float, Field(gt=0)] = Field(2e-3, description="Learning rate of the pre-training.")
