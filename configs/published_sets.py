"""The data sets that are known by name, and what belongs to each."""

from dataclasses import dataclass
from typing import Literal

SetName = Literal[
    "own",
    "webdataset",
    "msrvtt-1k-9k",
    "msrvtt-1k-7k",
    "msrvtt-3k",
    "msvd",
    "vatex",
    "activitynet",
    "didemo",
    "lsmdc",
    "teachclip-files",
]
SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Count:
    """Videos and texts of a split."""

    videos: int
    texts: int


@dataclass(frozen=True)
class Needed:
    """A file of annotations: `names` that it comes under, any of which will do; splits that need it; where it is from.

    Where captions are spread over several of the names, they are looked up in one after the other.
    """

    names: tuple[str, ...]
    splits: tuple[SplitName, ...]
    origin: str


@dataclass(frozen=True)
class PublishedSet:
    """A published data set.

    Attributes:
        title: what people call it, and which part of it this is.
        home: the page of those who made it.
        videos: how the video files are named.
        needed: the files of annotations.
        paper: its name in the paper's tables; None where it is not in them.
    """

    title: str
    home: str
    videos: str
    needed: tuple[Needed, ...]
    paper: str | None = None

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """The splits that were published."""
        return tuple(dict.fromkeys(split for file in self.needed for split in file.splits))


TEACHCLIP = "TeachCLIP's annotations (github.com/ruc-aimc-lab/TeachCLIP)"
CLIP4CLIP = "CLIP4Clip's msrvtt_data.zip (github.com/ArrowLuo/CLIP4Clip)"
_MSRVTT_HOME = "ms-multimedia-challenge.com/2017/dataset"
_MSRVTT_VIDEOS = "video0.mp4, video1.mp4, ..."
_MSRVTT_TABLES = (
    "MSRVTT_data.json",
    "train_val_videodatainfo.json",
    "test_videodatainfo.json",
    "sgn_train.json",
    "sgn_val.json",
    "sgn_test.json",
)
_MSRVTT_1K_TEST = Needed(("MSRVTT_JSFUSION_test.csv",), ("test",), CLIP4CLIP)


def _msrvtt_full(split: SplitName) -> Needed:
    names = (f"MSRVTT_full_split_{split}.csv", f"MSRVTT_{split}.full.csv")
    return Needed(names, (split,), f"{TEACHCLIP}, or CLIP2Video's (github.com/CryhanFang/CLIP2Video)")


def _lists(splits: tuple[SplitName, ...], pattern: str, origin: str) -> tuple[Needed, ...]:
    return tuple(Needed((pattern.format(split),), (split,), origin) for split in splits)


_ALL: tuple[SplitName, ...] = ("train", "val", "test")
PUBLISHED: dict[SetName, PublishedSet] = {
    "msrvtt-1k-9k": PublishedSet(
        "MSR-VTT, 1k split, 9,000 training videos",
        _MSRVTT_HOME,
        _MSRVTT_VIDEOS,
        (
            Needed(("MSRVTT_train.9k.csv",), ("train",), CLIP4CLIP),
            _MSRVTT_1K_TEST,
            Needed(_MSRVTT_TABLES, ("train",), CLIP4CLIP),
        ),
        "MSRVTT-1k",
    ),
    "msrvtt-1k-7k": PublishedSet(
        "MSR-VTT, 1k split, 7,010 training videos",
        _MSRVTT_HOME,
        _MSRVTT_VIDEOS,
        (
            Needed(("MSRVTT_train.7k.csv",), ("train",), CLIP4CLIP),
            _MSRVTT_1K_TEST,
            Needed(_MSRVTT_TABLES, ("train",), CLIP4CLIP),
        ),
    ),
    "msrvtt-3k": PublishedSet(
        "MSR-VTT, the split it was published with",
        _MSRVTT_HOME,
        _MSRVTT_VIDEOS,
        (*map(_msrvtt_full, _ALL), Needed(_MSRVTT_TABLES, _ALL, CLIP4CLIP)),
        "MSRVTT-3k",
    ),
    "msvd": PublishedSet(
        "MSVD",
        "www.cs.utexas.edu/users/ml/clamp/videoDescription",
        "-4wsuPCjDBc_5_15.avi, ...",
        (
            *_lists(_ALL, "{}_list.txt", "CLIP4Clip's msvd_data.zip (github.com/ArrowLuo/CLIP4Clip)"),
            Needed(
                ("raw-captions.pkl", "captions_msvd.json"),
                _ALL,
                "the same; the JSON: X-Pool's (github.com/layer6ai-labs/xpool)",
            ),
        ),
        "MSVD",
    ),
    "vatex": PublishedSet(
        "VATEX, English captions",
        "eric-xw.github.io/vatex-website",
        "Ptf_2VRj-V0_000122_000132.mp4, ...",
        (
            *(
                Needed(
                    (f"VATEX_{split}.csv", f"{split}_list.txt"),
                    (split,),
                    f"{TEACHCLIP}; the lists: CLIP2Video's (github.com/CryhanFang/CLIP2Video)",
                )
                for split in _ALL
            ),
            Needed(
                ("VATEX_data.json", "vatex_data.json", "vatex_training_v1.0.json", "vatex_validation_v1.0.json"),
                _ALL,
                f"{TEACHCLIP}, or the original files of eric-xw.github.io/vatex-website",
            ),
        ),
        "VATEX",
    ),
    "activitynet": PublishedSet(
        "ActivityNet Captions, paragraphs",
        "activity-net.org",
        "v_QOlSCBRmfWY.mp4, v_ehGHCYKzyZ8.mkv, ...",
        (
            Needed(("train.json",), ("train",), "ActivityNet Captions (captions.zip)"),
            Needed(("val_1.json",), ("test",), "ActivityNet Captions (captions.zip)"),
        ),
        "ActNetCap",
    ),
    "didemo": PublishedSet(
        "DiDeMo, paragraphs",
        "github.com/LisaAnne/LocalizingMoments",
        "12345678@N00_1234567890_0a1b2c3d4e.mov, ...",
        tuple(
            needed
            for split in _ALL
            for needed in (
                Needed(
                    (f"{split}_list.txt", f"ce_{split}_list.txt"),
                    (split,),
                    "collaborative-experts (github.com/albanie/collaborative-experts)",
                ),
                Needed(
                    (f"{split}_data.json", f"localizingmoments_{split}_data.json", f"didemo_{split}_label.csv"),
                    (split,),
                    "LocalizingMoments (github.com/LisaAnne/LocalizingMoments)",
                ),
            )
        ),
        "DiDeMo",
    ),
    "lsmdc": PublishedSet(
        "LSMDC 2016, 1k test clips",
        "sites.google.com/site/describingmovies",
        "1054_Harry_Potter_..._01.44.29.000-01.44.31.167.avi, in a folder for each film or in one",
        (
            Needed(("LSMDC16_annos_training.csv",), ("train",), "LSMDC (a licence has to be signed)"),
            Needed(("LSMDC16_annos_val.csv",), ("val",), "LSMDC (a licence has to be signed)"),
            Needed(("LSMDC16_challenge_1000_publictect.csv",), ("test",), "LSMDC (a licence has to be signed)"),
        ),
    ),
    "teachclip-files": PublishedSet(
        "TeachCLIP's text files",
        "github.com/ruc-aimc-lab/TeachCLIP",
        "named by their ids",
        tuple(
            needed
            for folder in ("VideoSet", "QuerySet", "Annotations")
            for needed in _lists(_ALL, f"{folder}/{{}}.txt", f"{TEACHCLIP}, each named for its split")
        ),
    ),
}
