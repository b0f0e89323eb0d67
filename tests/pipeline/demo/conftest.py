"""A demo so small that all of it runs in seconds."""

import pytest


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides that make it so."""
    return (
        "shapes.train_clips=16",
        "shapes.teacher_clips=24",
        "shapes.uncaptioned_clips=5",
        "shapes.val_clips=6",
        "shapes.test_clips=8",
        "shapes.pictures=64",
        "shapes.picture_steps=6",
        "shapes.picture_batch=16",
        "prepare.workers=1",
        "score.chance_check=false",
        "train.batch_size=16",
        "train.network.trunk.sizes.text_width=16",  # most of a checkpoint are the vectors of 49,408 tokens
        "train.max_steps=6",
        "train.device=cpu",
    )
