"""Whether a teacher is any good, in plain words and in a table."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ....plurals import counted
from ...wording import signed
from .elements import Figures, Row, Section, Table, of_model

if TYPE_CHECKING:
    from ....stages.analysis.teacher_worth import TeachersWorth, TeacherWorth
    from ....stages.retrieval.confidence import Interval

SPLITS = {"val": "validation", "test": "test", "train": "training"}
HEAD = ("", "R@1", "R@5", "R@10", "SumR", "SumR v2t", "captions", "videos")


def worth(found: "TeachersWorth | None") -> Section | None:
    """The section of a page."""
    if found is None or not found.teachers:
        return None
    note = (
        "Held-out captions are ranked among the videos of their split, from cached scores alone; intervals are 95 %, "
        "over videos. SumR: R@1 + R@5 + R@10, text to video."
    )
    figures = Figures(
        wide=Table(HEAD, list(_rows(found))), folded=("What teaching brought elsewhere", _curve()), note=note
    )
    return Section("Is the teacher any good?", "worth.html", {"told": list(told(found)), "figures": figures})


def told(found: "TeachersWorth") -> Iterator[str]:
    """What can be said of the teachers, a paragraph each."""
    yield f"Own captions that teach: {found.texts:,}, of {counted(found.videos, 'video')}."
    for each in found.teachers:
        yield f"{_ranked(each)} {_beside(each)}"
        yield _expected(each, found.evidence)


def _ranked(one: "TeacherWorth") -> str:
    if one.t2v is None:
        return f"{one.teacher}: nothing that it scored can be ranked."
    among = f"among {counted(one.videos, 'video')}"
    if one.split == "train":
        return (
            f"{one.teacher} ranks the {counted(one.texts, 'caption')} that it scored {among} with SumR "
            f"{one.t2v.sumr:.1f}. These are to train on, and whoever was trained on them knows them; with score.splits "
            "[train, val] held-out ones are scored, too."
        )
    of = f"{counted(one.texts, f'{SPLITS[one.split]} caption')} {among}, held out from training,"
    return f"{one.teacher} ranks {of} with SumR {one.t2v.sumr:.1f}{_between(one.interval)}."


def _beside(one: "TeacherWorth") -> str:
    if one.alone is None:
        return "There is no student alone of the same captions to compare it with: train one without train.teachers."
    if one.alone.sumr is None:
        on = "val" if one.split == "train" else one.split
        return f"The student alone, {one.alone.run}, was not measured on the same captions (evaluate.split {on})."
    alone = f"The student alone, {one.alone.run}, has {one.alone.sumr:.1f}"
    assert one.t2v is not None
    less = one.difference
    by = signed(one.t2v.sumr - one.alone.sumr if less is None else less.value)
    apart = by if less is None else f"{by} ({signed(less.low)} to {signed(less.high)})"
    if one.verdict == "better":
        return f"{alone}: the teacher is better by {apart}, and has something to teach."
    if one.verdict == "worse":
        return f"{alone}: the teacher is worse, {apart}. Do not expect it to teach anything."
    return f"{alone}: the teacher is hardly better, {apart}, no more than chance may give. Expect little of it."


def _expected(one: "TeacherWorth", evidence: str) -> str:
    near = one.expected
    if near is None:
        return "No size at which teaching was measured is near to this one: try it, beside the student alone."
    least, most = min(near.gains), max(near.gains)
    over = counted(len(near.gains), "draw")
    gain = signed(near.gain) if least == most else f"{signed(near.gain)} ({signed(least)} to {signed(most)})"
    teacher = (
        "whose teacher had learnt from the same clips" if near.equal else "whose teacher knew more than these tell"
    )
    size = f"{counted(near.clips, 'clip')} with {counted(near.captions, 'caption')} each"
    return f"What to expect, a hint: coarse teaching brought {gain} SumR to {size}, {teacher}; {over}, {evidence}."


def _between(interval: "Interval | None") -> str:
    return "" if interval is None else f" ({interval.low:.1f} to {interval.high:.1f})"


def _rows(found: "TeachersWorth") -> Iterator[Row]:
    for one in found.teachers:
        sumr = "–" if one.v2t is None else f"{one.v2t.sumr:.1f}"
        metrics = vars(one.t2v) if one.t2v else {}
        cells = [f"{metrics[key]:.1f}" if metrics else "–" for key in ("r1", "r5", "r10", "sumr")]
        yield of_model(one.teacher, *cells, sumr, f"{one.texts:,} ({SPLITS[one.split]})", f"{one.videos:,}")
    for run, sumr_alone in dict.fromkeys((one.alone.run, one.alone.sumr) for one in found.teachers if one.alone):
        value = "–" if sumr_alone is None else f"{sumr_alone:.1f}"
        yield Row(f"student alone, {run}", ["–", "–", "–", value, "–", "", ""])


def _curve() -> Table:
    from ....stages.analysis.teaching_curve import CURVE

    head = (
        "clips x captions",
        "student alone",
        "teacher",
        "gain of coarse teaching",
        "draws",
        "teacher learnt from",
        "",
    )
    rows = [
        Row(
            f"{one.clips:,} x {one.captions}",
            [
                f"{one.alone:.1f}",
                "–" if one.teacher is None else f"{one.teacher:.1f}",
                signed(one.gain),
                str(len(one.gains)),
                "the same clips" if one.equal else "others",
                one.source,
            ],
        )
        for one in CURVE
    ]
    return Table(head, rows)
