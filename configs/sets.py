"""The published data sets that are known by name: what belongs to each, and how large the paper says it is."""

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
]
