"""What searching and training cost, network by network (TeachCLIP, table 1 and figure 1)."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ....configs.schema import Config, NetworkConfig, TeacherConfig, TrainConfig, TrunkConfig
from ...models.checkpoints.files import checkpoint_file, recognised
from ...models.clip.catalog import named_sizes
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


@dataclass(frozen=True)
class PaperCost:
    """What a row of the paper's table 1 prints: multiply-adds per pair, bytes per video (float32), multiply-adds per
    video."""

    row: str
    pair: float
    bytes: float
    video: float


# As far as this project's specifications quote the table (X-Pool 7, DRL 6): ViT-B/32, 12 frames, 32 words.
PAPER = {
    "xpool": PaperCost("X-Pool", pair=275.0e3, bytes=24 * 1024, video=53.49e9),
    "drl": PaperCost("DRL", pair=220.4e3, bytes=26 * 1024, video=53.64e9),
}
PAPER_MODEL, PAPER_FRAMES, PAPER_WORDS = "ViT-B-32-quickgelu", 12, 32

# Bytes of the paper's training step. It prints none for AFA against mean pooling.
PAPER_TRAINING = {"without a teacher": 40.0e9, "with one teacher inside the step": 42.7e9}


@dataclass(frozen=True)
class MethodCost:
    """One network: its name, kind and cost, and what the paper prints for it, or None."""

    name: str
    kind: str
    frames: int
    words: int
    cost: NetworkCost
    paper: PaperCost | None


@dataclass(frozen=True)
class CostReport:
    """What `cost` found.

    Attributes:
        convention: what is counted, in words.
        methods: network by network.
        training: bytes of a training step; paper_training: what the paper prints of its own, for networks of its sizes.
        machine, speed: where searches were timed, and how long they took; None and empty unless asked for.
    """

    convention: str
    methods: tuple[MethodCost, ...]
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
        sizes[INDEX] = videos or STUDENT_SIZES
        speed = search_speed(timed, sizes, device, repeats, reporter)
    methods = [method for name, network in networks.items() for method in _counted(name, network)]
    trained = None if checkpoints and config is None else TrainConfig() if config is None else config.train
    return CostReport(
        convention=CONVENTION,
        methods=tuple(methods),
        training=_training(trained, device) if trained else (),
        paper_training=PAPER_TRAINING if trained and _is_the_papers(trained.network) else {},
        machine=machine(device) if measure else None,
        speed=speed,
    )


def standard() -> dict[str, NetworkConfig]:
    """Every method at ViT-B/32, 12 frames and 32 words, by its name in the table."""
    trunk = TrunkConfig(weights=None)
    kinds = {"X-CLIP": "xclip", "TS2-Net": "ts2net", "X-Pool": "xpool", "DRL": "drl"}
    student = NetworkConfig(trunk=trunk)
    return {
        "student (AFA)": student,
        "CLIP4Clip (mean)": student.model_copy(update={"pooling": "mean"}),
        "CLIP as it is": NetworkConfig(kind="openclip", trunk=trunk),
        **{name: NetworkConfig.model_validate({"kind": kind, "trunk": trunk}) for name, kind in kinds.items()},
    }


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
    paper = PAPER.get(network.kind) if _is_the_papers(network) else None
    slots = (network.kind, network.frames, network.words)
    yield MethodCost(name, *slots, count_network(network), paper)
    if network.kind == "xpool":
        yield MethodCost(f"{name}, as published", *slots, count_network(network, published_form=True), paper)


def _is_the_papers(network: NetworkConfig) -> bool:
    slots = (network.frames, network.words) == (PAPER_FRAMES, PAPER_WORDS)
    return slots and (network.trunk.sizes or named_sizes(network.trunk.model)) == named_sizes(PAPER_MODEL)


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
