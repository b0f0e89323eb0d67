"""A student as a library has it: sentences and video files in, vectors out, nothing written anywhere.

Names and defaults are those that people know from sentence-transformers, where there are such.
"""

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor

from ...cache.frames.record import VideoRecord, VideoStatus
from ...configs.loading import load_config
from ...configs.schema import PrepareConfig
from ...errors import CheckpointError, ConfigError, DataError
from ...plurals import counted
from ..data.video.workers import decode_videos
from ..data.video_inputs import VIDEOS_AT_ONCE
from ..models.common.network import Features
from ..models.named import NamedModel, named_model
from ..runtime.cores import cores
from ..runtime.device import choose_device, plain_float32
from ..runtime.reporting import Reporter, Silent

TEXTS_AT_ONCE = 512
"""As evaluation has them: the last bits of a vector can depend on what is computed with it."""

_NETWORK = threading.Lock()  # a network's precision is a setting of the whole process (`plain_float32`)
_RUN_CONFIG = "config.yaml"  # of a run folder
_SHOWN = 20

type VideoPath = str | os.PathLike[str]
type Device = str | torch.device


@dataclass(frozen=True)
class EncodedVideos:
    """Vectors of the videos that could be used, and what became of each.

    Attributes:
        vectors: [U, D], of the usable ones, in the order given.
        paths: of the rows [U].
        statuses: of all videos that were given, in order; `status` is "ok" or says why there is no vector, and `reason`
            more.
    """

    vectors: np.ndarray | Tensor
    paths: tuple[str, ...]
    statuses: tuple[VideoStatus, ...]


def load(name: VideoPath, *, device: Device = "auto", reporter: Reporter | None = None) -> "Encoder":
    """A student, or plain CLIP, to encode with.

    Args:
        name: a run folder, a checkpoint file (ours or a published one), `openclip:MODEL/TAG` or `openclip:MODEL/PATH`.
        device: where it runs: "auto" (the GPU, where there is one), "cpu", "cuda", "cuda:1".
        reporter: is told what a published checkpoint is, and of sentences that are longer than what the model reads.

    Raises:
        CheckpointError: it is not there, cannot be loaded or fetched, or is a teacher, which makes no vectors.
        ConfigError: no such open_clip model or device; the run's configuration cannot be read.
    """
    where = _device(device)
    instead = "load a student; this network can teach one, and re-order what a student has found"
    model = named_model(os.fspath(name), where, reporter, instead=instead)
    return Encoder(model, _frame_choice(Path(name)), reporter)


class Encoder:
    """Sentences and videos -> unit vectors float32, whose dot products are cosines. Several threads may use one.

        student = load("runs/taught")
        videos = student.encode_videos(["a.mp4", "b.mp4"])
        student.similarity(student.encode_texts("a dog runs"), videos)

    Vectors are those that `index` and `evaluate` make of the same frames, bit by bit where the same videos are encoded
    together. Videos are decoded by processes of their own, so a script does this below `if __name__ == "__main__":`.

    Args:
        model: the network.
        frames: how frames of a video are chosen: `sample_fps`, `choice`, `last_second`; by default one a second, at
            most as many as the network takes, evenly.
        reporter: as in `load`.

    Attributes:
        description: what the network is, in words.
        digest: vectors of encoders with equal digests can be compared.
        device: where it runs; a call with another `device` moves it there.
    """

    def __init__(
        self, model: NamedModel, frames: PrepareConfig | None = None, reporter: Reporter | None = None
    ) -> None:
        self.description, self.digest = model.description, model.digest
        self.device = model.network.logit_scale.device
        self._network, self._tokenize = model.network, model.tokenize
        self._reporter = reporter or Silent()
        config, trunk = model.network.config, model.network.trunk
        own = {**trunk.prepared, "max_frames": config.frames, "storage": "raw"}
        self._prepare = (frames or PrepareConfig()).model_copy(update=own)

    def get_sentence_embedding_dimension(self) -> int:
        """D, the numbers of a vector, of a sentence's or a video's."""
        return self._network.vector_width

    @overload
    def encode_texts(
        self, sentences: str | Sequence[str], batch_size: int = ..., show_progress_bar: bool | None = ...,
        *, convert_to_numpy: bool = ..., convert_to_tensor: Literal[False] = ..., device: Device | None = ...,
        normalize_embeddings: bool = ...,
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def encode_texts(
        self, sentences: str | Sequence[str], batch_size: int = ..., show_progress_bar: bool | None = ...,
        *, convert_to_numpy: bool = ..., convert_to_tensor: Literal[True], device: Device | None = ...,
        normalize_embeddings: bool = ...,
    ) -> Tensor: ...  # fmt: skip

    def encode_texts(
        self,
        sentences: str | Sequence[str],
        batch_size: int = TEXTS_AT_ONCE,
        show_progress_bar: bool | None = None,
        *,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Device | None = None,
        normalize_embeddings: bool = True,
    ) -> np.ndarray | Tensor:
        """Unit vectors float32 [T, D] of T sentences; [D] of a single str.

        Args:
            sentences: one, or several; of one longer than what the network reads, its beginning counts.
            batch_size: sentences encoded at a time.
            show_progress_bar: on the error stream.
            convert_to_tensor: a torch tensor on the network's device, instead of numpy.
            device: where this and what follows runs.
            convert_to_numpy, normalize_embeddings: as sentence-transformers has them, for calls that name them; the
                result is numpy unless `convert_to_tensor` asks for torch, and the network's last step makes unit
                vectors, so these change nothing.

        Raises:
            CheckpointError: the network makes a vector that is not finite.
            TypeError: something is no str.
        """
        given = [sentences] if isinstance(sentences, str) else list(sentences)
        if wrong := [type(each).__name__ for each in given if not isinstance(each, str)]:
            raise TypeError(f"sentences are str, and this is {wrong[0]}")
        where = self._moved(device)
        parts: list[Tensor] = []
        with _bar("sentences", len(given), show_progress_bar) as advance:
            for part in batched(given, _positive(batch_size)):
                ids, cut = self._tokenize(part)
                self._tell_cut(part, cut)
                parts.append(self._run(where, part, self._network.encode_texts, ids))
                advance(len(part))
        return _handed(self._joined(parts, where), isinstance(sentences, str), convert_to_tensor)

    @overload
    def encode_videos(
        self, paths: VideoPath | Sequence[VideoPath], batch_size: int = ..., show_progress_bar: bool | None = ...,
        *, convert_to_numpy: bool = ..., convert_to_tensor: Literal[False] = ..., device: Device | None = ...,
        normalize_embeddings: bool = ..., on_error: Literal["raise"] = ..., workers: int = ...,
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def encode_videos(
        self, paths: VideoPath | Sequence[VideoPath], batch_size: int = ..., show_progress_bar: bool | None = ...,
        *, convert_to_numpy: bool = ..., convert_to_tensor: Literal[True], device: Device | None = ...,
        normalize_embeddings: bool = ..., on_error: Literal["raise"] = ..., workers: int = ...,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def encode_videos(
        self, paths: VideoPath | Sequence[VideoPath], batch_size: int = ..., show_progress_bar: bool | None = ...,
        *, convert_to_numpy: bool = ..., convert_to_tensor: bool = ..., device: Device | None = ...,
        normalize_embeddings: bool = ..., on_error: Literal["report"], workers: int = ...,
    ) -> EncodedVideos: ...  # fmt: skip

    def encode_videos(
        self,
        paths: VideoPath | Sequence[VideoPath],
        batch_size: int = VIDEOS_AT_ONCE,
        show_progress_bar: bool | None = None,
        *,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Device | None = None,
        normalize_embeddings: bool = True,
        on_error: Literal["raise", "report"] = "raise",
        workers: int = 0,
    ) -> np.ndarray | Tensor | EncodedVideos:
        """Unit vectors float32 [V, D] of V video files; [D] of a single path.

        Args:
            paths: one file, or several.
            batch_size: videos encoded at a time.
            on_error: "raise": the first video that cannot be used ends it; "report": the others' vectors, with a status
                of every video (`EncodedVideos`), also of a single path.
            workers: decoding processes; 0 for one per core.
            show_progress_bar, convert_to_tensor, device, convert_to_numpy, normalize_embeddings: as in `encode_texts`.

        Raises:
            DataError: a video cannot be used; names it and says why.
            CheckpointError: the network makes a vector that is not finite.
            ValueError: `on_error` is neither.
        """
        single = isinstance(paths, str | os.PathLike)
        given = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
        if on_error not in ("raise", "report"):
            raise ValueError(f'on_error is "raise" or "report", not {on_error!r}')
        strict = on_error == "raise"
        if strict and (absent := [path for path in given if not path.exists()]):
            raise _unusable([VideoStatus(str(path), "missing", "there is no such file") for path in absent])
        where = self._moved(device)
        statuses: list[VideoStatus] = []
        used: list[str] = []
        parts: list[Tensor] = []
        with _bar("videos", len(given), show_progress_bar) as advance:
            ahead = _positive(batch_size) + 2 * (workers or cores())
            with closing(self._records(given, strict, workers, ahead)) as records:
                for part in batched(_usable(records, statuses, advance), batch_size):
                    names = [record.status.video for record in part]
                    parts.append(self._run(where, names, self._network.encode_videos, *self._slots(part)))
                    used += names
        vectors = self._joined(parts, where)
        if not strict:
            return EncodedVideos(_handed(vectors, False, convert_to_tensor), tuple(used), tuple(statuses))
        return _handed(vectors, single, convert_to_tensor)

    @overload
    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray: ...

    @overload
    def similarity(self, a: Tensor, b: np.ndarray | Tensor) -> Tensor: ...

    @overload
    def similarity(self, a: np.ndarray | Tensor, b: Tensor) -> Tensor: ...

    def similarity(self, a: np.ndarray | Tensor, b: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """Cosines float32 [A, B] of unit vectors [A, D] and [B, D]; a single vector [D] counts as one row.

        A torch tensor, where one of the two is, on the first one's device; else numpy.

        Raises:
            ValueError: vectors of other widths.
        """
        width = self.get_sentence_embedding_dimension()
        if wrong := [each.shape for each in (a, b) if each.ndim not in (1, 2) or each.shape[-1] != width]:
            raise ValueError(f"vectors have {width} numbers here; this is {tuple(wrong[0])}")
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            one, other = (each.reshape(-1, width).astype(np.float32, copy=False) for each in (a, b))
            cosines: np.ndarray = one @ other.T
            return cosines
        device = next(each.device for each in (a, b) if isinstance(each, Tensor))
        first, second = (torch.as_tensor(each, device=device).reshape(-1, width).float() for each in (a, b))
        cosines_on_device: Tensor = first @ second.T
        return cosines_on_device

    def _moved(self, device: Device | None) -> torch.device:
        """Where a call runs."""
        return self.device if device is None else _device(device)

    def _run(
        self, where: torch.device, names: Sequence[str], encode: Callable[..., Features], *tensors: Tensor
    ) -> Tensor:
        """Vectors float32 [N, D] of what `names` names."""
        with _NETWORK, torch.no_grad(), plain_float32(where):
            if where != self.device:
                self._network.to(where)
                self.device = where
            vectors = encode(*(tensor.to(where) for tensor in tensors))["vector"].float()
        fine = vectors.isfinite().all(dim=1).tolist()
        if not all(fine):
            raise CheckpointError(
                "the model makes vectors that are not finite",
                details=[name for name, is_fine in zip(names, fine, strict=True) if not is_fine],
                hint="its weights are damaged or its training diverged: train it again, or load another one",
            )
        return vectors

    def _slots(self, records: Sequence[VideoRecord]) -> tuple[Tensor, Tensor]:
        """Frames uint8 [V, F, 3, S, S], zeros behind a video's last, and which of them there are [V, F]."""
        size = self._prepare.image_size
        frames = np.zeros((len(records), self._prepare.max_frames, 3, size, size), np.uint8)
        mask = np.zeros(frames.shape[:2], bool)
        for row, record in enumerate(records):
            frames[row, : len(record.images)] = record.images
            mask[row, : len(record.images)] = True
        return torch.from_numpy(frames), torch.from_numpy(mask)

    def _records(self, paths: Sequence[Path], strict: bool, workers: int, ahead: int) -> Generator[VideoRecord]:
        """What became of each video, in order."""
        config = self._prepare.model_copy(update={"workers": workers})
        waiting: dict[int, VideoRecord] = {}
        following = 0
        with closing(decode_videos([(str(path), path) for path in paths], config, ahead)) as decoding:
            for decoded in decoding:
                if strict and decoded.record.status.status != "ok":
                    raise _unusable([decoded.record.status])
                waiting[decoded.index] = decoded.record
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1

    def _tell_cut(self, sentences: Sequence[str], cut: Tensor) -> None:
        reads = self._network.config.words - 2
        for sentence, is_cut in zip(sentences, cut.tolist(), strict=True):
            if is_cut:
                self._reporter.warn(f"the model reads the first {reads} tokens of a sentence; longer is {sentence!r}")

    def _joined(self, parts: list[Tensor], where: torch.device) -> Tensor:
        return torch.cat(parts) if parts else torch.zeros(0, self.get_sentence_embedding_dimension(), device=where)


def _usable(
    records: Iterator[VideoRecord], statuses: list[VideoStatus], advance: Callable[[int], None]
) -> Iterator[VideoRecord]:
    """The records that have frames; `statuses` takes what became of each."""
    for record in records:
        statuses.append(record.status)
        advance(1)
        if record.status.status == "ok":
            yield record


def _unusable(statuses: Sequence[VideoStatus]) -> DataError:
    first, hint = statuses[0], 'on_error="report" gives the vectors of the others, and a status of each'
    if len(statuses) == 1:
        return DataError(f"this video cannot be used: {first.status}, {first.reason}", where=first.video, hint=hint)
    shown = [f"{each.video}: {each.status}, {each.reason}" for each in statuses[:_SHOWN]]
    more = [f"and {len(statuses) - _SHOWN} more"] if len(statuses) > _SHOWN else []
    return DataError(f"{counted(len(statuses), 'video')} cannot be used", details=[*shown, *more], hint=hint)


def _handed(vectors: Tensor, single: bool, as_tensor: bool) -> np.ndarray | Tensor:
    chosen = vectors[0] if single else vectors
    if as_tensor:
        return chosen
    array: np.ndarray = chosen.cpu().numpy()
    return array


def _positive(batch_size: int) -> int:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; at least 1 is encoded at a time")
    return batch_size


def _device(name: Device) -> torch.device:
    """The device of this name.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        return choose_device("auto")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(
            f"torch has no device {str(name)!r} here", details=[reason], hint="use auto, or cpu"
        ) from error
    return device


def _frame_choice(name: Path) -> PrepareConfig | None:
    """How a run's own frames were chosen; None for what is no run folder."""
    return load_config(name / _RUN_CONFIG).prepare if (name / _RUN_CONFIG).is_file() else None


@contextmanager
def _bar(title: str, total: int, shown: bool | None) -> Iterator[Callable[[int], None]]:
    """Yields what counts on."""
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, force_jupyter=False)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
