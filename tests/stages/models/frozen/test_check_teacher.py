"""`teachclip.testing.check_teacher`: the documented teacher passes, and every mistake is found by its line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from teachclip.errors import PluginError
from teachclip.testing import check_teacher

PAGE = Path(__file__).parents[4] / "docs/guide/teachers.md"
OPTIONS = {"frames": 4}


@pytest.fixture
def changed() -> Callable[..., Any]:
    """`changed(old, new)`: the class of the page with `old` replaced."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)

    def make(old: str = "", new: str = "") -> Any:
        assert old in example
        made: dict[str, Any] = {"__name__": "example"}
        exec(example.replace(old, new) if old else example, made)
        return made["Trigrams"]

    return make


def test_the_pages_teacher_passes(changed: Any) -> None:
    check_teacher(changed(), OPTIONS, image_size=16)
    check_teacher(changed(), {"frames": 1}, image_size=16)


def test_one_without_frame_scores_passes(changed: Any) -> None:
    plain = changed()
    del plain.frame_logits
    check_teacher(plain, OPTIONS, image_size=16)


SCORE = 'return texts["text"] @ videos["video"].T'
FRAMES = 'return torch.einsum("td,tfd->tf", texts["text"], videos["frames"])'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hashlib.sha256(save(state)).hexdigest()", "str(id(self)) + str(torch.rand(1))", "weights_digest: '"),
        ("scale = 20.0", "scale = -1.0", "scale: -1.0; it is a positive number"),
        (SCORE, f"{SCORE} + torch.rand(1)", "score: other numbers for the same input when it is called again"),
        (SCORE, f"{SCORE} / len(texts['text'])", "score: a pair's number is another when other captions and videos"),
        ("vectors = normalize(pixels @ self.image, dim=-1)", "vectors = (pixels - pixels.mean(0)) @ self.image",
         "of a video is another when other videos are encoded with it"),
        ("normalize(counts.to(self.device) @ self.text, dim=-1)", "(counts - counts.mean(0)) @ self.text",
         "of a caption is another when other captions are encoded with it"),
        (" * mask[..., None]", "", "scores depend on the pixels of padded frames"),
        ("small = interpolate(", "frames[0] = 0\n        small = interpolate(", "changes the frames that it is given"),
        (FRAMES, f"{FRAMES} * 1e6", "frame_logits: as large as"),
        (FRAMES, f"{FRAMES}.masked_fill(videos['frames'].sum(-1) == 0, -torch.inf)", "not finite"),
        (FRAMES, f"{FRAMES} * 0", "frame_logits: all are 0"),
        (FRAMES, f"{FRAMES}.softmax(0)", "frame_logits: a caption's numbers are others when other captions"),
        ("in range(len(text) - 2)", "in range(len(nothing))", "NameError"),
    ],
)  # fmt: skip
def test_every_mistake_has_its_line(changed: Any, old: str, new: str, said: str) -> None:
    with pytest.raises(PluginError) as found:
        check_teacher(changed(old, new), OPTIONS, image_size=16)
    assert said in str(found.value)


def test_all_mistakes_are_told_at_once(changed: Any) -> None:
    teacher = changed(SCORE, f"{SCORE} + torch.rand(1)")
    teacher.frame_logits = lambda self, texts, videos: videos["frames"].sum(-1) * 0
    with pytest.raises(PluginError, match=r"example:Trigrams is no teacher yet") as found:
        check_teacher(teacher, OPTIONS, image_size=16)
    assert len(found.value.details) >= 2
