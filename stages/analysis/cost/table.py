"""What searching and training cost, network by network (TeachCLIP, table 1 and figure 1)."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ....configs.schema import Config, NetworkConfig, TeacherConfig, TrainConfig, TrunkConfig
from ....configs.sweeps import PublishedCost, RowConfig, load_sweep, tables
from ...models.checkpoints.files import checkpoint_file, recognised
from ...models.clip.catalog import resolved
from ...models.weights.files import read_weights
from ...runtime.device import choose_device
from ...runtime.reporting import Reporter, Silent
from .memory import PRECISIONS, TrainingMemory, training_memory
from .network import NetworkCost, count_network
from .search_speed import INDEX, Speed, machine, search_speed

CONVENTION = (
    "Operations are multiply-adds; FLOPs are twice as many. The paper's FLOPs are multiply-adds as well: its 275.0 K "
    "for X-Pool are 2 x 12 x 512 + 512^2 + 512. Counted are matrix products, convolutions and attention; softmax, "
    "maxima, normalisation and sums are not. KB are 1,024 bytes."
)
SIZES = (1_000, 10_000)
STUDENT_SIZES = (1_000, 10_000, 100_000)


KB = 1024


@dataclass(frozen=True)
class PaperCost:
    """What a row of the paper's table 1 prints.

    Attributes:
        pair, video: multiply-adds; bytes: per video, float32. None where the paper leaves the cell empty.
        r1, sumr: text to video on MSR-VTT-1k, in percent.
        why: where ours differs (pair, kb, video), the reason.
    """

    row: str
    pair: float
    bytes: float
    video: float | None
    r1: float | None
    sumr: float | None
    why: Mapping[str, str]


PAPER_MODEL, PAPER_FRAMES, PAPER_WORDS = "ViT-B-32-quickgelu", 12, 32

# Bytes of the paper's training step. It prints none for AFA against mean pooling.
PAPER_TRAINING = {"without a teacher": 40.0e9, "with one teacher inside the step": 42.7e9}


@dataclass(frozen=True)
class MethodCost:
    """One network: its name, kind and cost, what the paper prints for it (or None), and which of its cells differ.

    Networks on experts have no frames: `frames` is 0.
    """

    name: str
    kind: str
    frames: int
    words: int
    cost: NetworkCost
    paper: PaperCost | None
    unlike: tuple[str, ...] = ()


@dataclass(frozen=True)
class CostReport:
    """What `cost` found.

    Attributes:
        convention: what is counted, in words.
        methods: network by network.
        not_counted: rows of the paper's table 1 whose networks are not part of teachclip; beside all methods only.
        training: bytes of a training step, of networks with a trunk; paper_training: what the paper prints of its own,
            for networks of its sizes.
        machine, speed: where searches were timed, and how long they took; None and empty unless asked for.
    """

    convention: str
    methods: tuple[MethodCost, ...]
    not_counted: tuple[PaperCost, ...]
    training: tuple[TrainingMemory, ...]
    paper_training: Mapping[str, float]
    machine: str | None
    speed: tuple[Speed, ...]


def cost(
    config: Config | None = None,
    checkpoints: Sequence[Path] = (),
    *,
    measure: bool = False,
    videos: Sequence[int] = (),
    repeats: int = 5,
    reporter: Reporter | None = None,
) -> CostReport:
    """Count, and on request time, what networks cost.

    Args:
        config: its `train.network` and teachers are counted; by default every method at ViT-B/32, 12 frames, 32 words.
        checkpoints: files or run folders whose networks are counted; without a configuration only these.
        measure: time searches, too. videos: among how many; by default 1,000 and 10,000, students also 100,000.
        repeats: of each search; the median counts.

    Raises:
        CheckpointError: a checkpoint cannot be read.
        ConfigError: a trunk that is not known.
    """
    reporter = reporter or Silent()
    networks = _networks(config, checkpoints, reporter)
    device = choose_device("auto" if config is None else config.search.device)
    speed: tuple[Speed, ...] = ()
    if measure:
        _tell_of_others(reporter)
        timed = _timed(networks)
        sizes = {name: videos or (STUDENT_SIZES if _one_vector(each) else SIZES) for name, each in timed.items()}
        if not all(network.on_experts for network in networks.values()):
            sizes[INDEX] = videos or STUDENT_SIZES
        speed = search_speed(timed, sizes, device, repeats, reporter)
    methods = [method for name, network in networks.items() for method in _counted(name, network)]
    trained = None if checkpoints and config is None else TrainConfig() if config is None else config.train
    return CostReport(
        convention=CONVENTION,
        methods=tuple(methods),
        not_counted=_not_counted() if config is None and not checkpoints else (),
        training=_training(trained, device) if trained and not trained.network.on_experts else (),
        paper_training=PAPER_TRAINING if trained and is_the_papers(trained.network) else {},
        machine=machine(device) if measure else None,
        speed=speed,
    )


def standard() -> dict[str, NetworkConfig]:
    """Every method at ViT-B/32, 12 frames and 32 words, by its name in the table, in the order of the paper's."""
    trunk = TrunkConfig(weights=None)
    kinds = {"TS2-Net": "ts2net", "X-CLIP": "xclip", "X-Pool": "xpool", "DRL": "drl"}
    student = NetworkConfig(trunk=trunk)
    return {
        "CLIP4Clip (mean)": student.model_copy(update={"pooling": "mean"}),
        **{name: NetworkConfig.model_validate({"kind": kind, "trunk": trunk}) for name, kind in kinds.items()},
        "student (AFA)": student,
        "CLIP as it is": NetworkConfig(kind="openclip", trunk=trunk),
    }


def unlike(found: NetworkCost, paper: PublishedCost) -> tuple[str, ...]:
    """The cells (pair, kb, video) in which the paper, as many digits as it prints, has another number."""
    cells: dict[str, tuple[float, float | None, float]] = {  # ours, the paper's, the last digit that it prints
        "pair": (found.pair, paper.pair, 100),
        "kb": (found.bytes_float32 / KB, paper.kb, 1),
        "video": (found.video, paper.video, 1e7),
    }
    return tuple(
        name
        for name, (ours, theirs, digit) in cells.items()
        if theirs is not None and round(ours / digit) != round(theirs / digit)
    )


def is_the_papers(network: NetworkConfig) -> bool:
    """Whether a network has the sizes that the paper's table 1 is of: ViT-B/32, 12 frames, 32 words."""
    if network.on_experts:
        return False
    slots = (network.frames, network.words) == (PAPER_FRAMES, PAPER_WORDS)
    asked, papers = network.trunk.model_copy(update={"weights": None}), TrunkConfig(model=PAPER_MODEL, weights=None)
    return slots and resolved(asked).sizes == resolved(papers).sizes


def _rows() -> tuple[RowConfig, ...]:
    return load_sweep(tables()["table1"]).settings.runs


def _row_of(network: NetworkConfig) -> RowConfig | None:
    """The row of the paper's table 1 that a network of its sizes stands in."""
    if not is_the_papers(network):
        return None
    if network.kind == "student":
        label = "TeachCLIP" if network.pooling == "afa" else "CLIP4Clip"
        return next(row for row in _rows() if row.label == label)
    return next((row for row in _rows() if row.teacher == network.kind), None)


def _not_counted() -> tuple[PaperCost, ...]:
    return tuple(_paper(row) for row in _rows() if row.quoted)


def _paper(row: RowConfig) -> PaperCost:
    cost, quality = row.paper_cost, row.paper["msrvtt-1k-9k"]
    assert cost is not None
    return PaperCost(row.label, cost.pair, cost.kb * KB, cost.video, quality.r1, quality.sumr, dict(cost.why.items()))


def _networks(config: Config | None, checkpoints: Sequence[Path], reporter: Reporter) -> dict[str, NetworkConfig]:
    """The networks that are asked for, by name."""
    found: dict[str, NetworkConfig] = {}
    if config is not None:
        network = config.train.network
        found[f"train.network ({network.kind})"] = network
        for teacher in config.score.teachers:
            path = config.teacher_checkpoint(teacher)
            if path is not None:
                found[teacher.name] = _of_checkpoint(path, teacher.frames, teacher.words)
            elif teacher.openclip is not None:
                found[teacher.name] = _zero_shot(teacher)
            else:
                reporter.info(f"{teacher.name} is a class of your own, whose operations are not counted")
    for path in checkpoints:
        name = path.name if path.is_dir() else path.stem
        found[name if name not in found else str(path)] = _of_checkpoint(path)
    return found or standard()


def _of_checkpoint(path: Path, frames: int | None = None, words: int | None = None) -> NetworkConfig:
    file = checkpoint_file(path)
    return recognised(read_weights(file), str(file), frames=frames, words=words).config


def _zero_shot(teacher: TeacherConfig) -> NetworkConfig:
    assert teacher.openclip is not None
    slots = {"frames": teacher.frames, "words": teacher.words}
    given = {key: value for key, value in slots.items() if value is not None}
    return NetworkConfig.model_validate({"kind": "openclip", "trunk": teacher.openclip, **given})


def _counted(name: str, network: NetworkConfig) -> Iterator[MethodCost]:
    """The network; X-Pool also in the form that pools the frames anew for every pair."""
    yield _method(name, network, count_network(network))
    if network.kind == "xpool":
        yield _method(f"{name}, as published", network, count_network(network, published_form=True))


def _method(name: str, network: NetworkConfig, found: NetworkCost) -> MethodCost:
    row = _row_of(network)
    slots = (network.kind, network.frames, network.words)
    if network.on_experts:
        slots = (network.kind, 0, network.experts.text.words)
    if row is None or row.paper_cost is None:
        return MethodCost(name, *slots, found, None)
    return MethodCost(name, *slots, found, _paper(row), unlike(found, row.paper_cost))


def _tell_of_others(reporter: Reporter) -> None:
    """A machine with other work to do says little about how long a search takes."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 0.75 * cores:
        reporter.warn(f"this machine is busy (load {load:.1f} on {cores} cores): searches will take longer than alone")


def _timed(networks: Mapping[str, NetworkConfig]) -> dict[str, NetworkConfig]:
    """Of networks that keep one vector per video only the first: to search with them is the same."""
    first = next((name for name, network in networks.items() if _one_vector(network)), None)
    return {name: network for name, network in networks.items() if name == first or not _one_vector(network)}


def _one_vector(network: NetworkConfig) -> bool:
    return network.kind in ("student", "openclip")


def _training(settings: TrainConfig, device: torch.device) -> tuple[TrainingMemory, ...]:
    """With AFA, and with mean pooling; of a teacher that is trained, itself."""
    network = settings.network
    ways: dict[str, NetworkConfig] = {network.kind: network}
    if network.kind == "student":
        ways = {name: network.model_copy(update={"pooling": name}) for name in ("afa", "mean")}
    return tuple(
        training_memory(name, settings.model_copy(update={"network": way}), precision, device)
        for precision in PRECISIONS
        for name, way in ways.items()
    )
