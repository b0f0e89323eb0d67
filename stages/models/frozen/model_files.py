"""A model in Hugging Face's format: a folder on disk, or a name on the hub. None of the code beside it is ever run."""

import hashlib
import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

from ....errors import CheckpointError, ConfigError, TeachclipError, UnreachableError
from ..clip.hub import quiet_hub, why_out_of_reach

CONFIG, MODULES = "config.json", "modules.json"
_READ = {".json", ".txt", ".model", ".safetensors", ".jinja"}  # what a model, a tokenizer and a processor are read from
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"}
_TOKENIZERS = {
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_NO_PICKLES = "open it where you trust it and save it with save_pretrained, or name a revision that has safetensors"


@dataclass(frozen=True)
class ModelFiles:
    """Where a model lies, and what stands for it.

    Attributes:
        folder: its files.
        digest: of their bytes; of a model of the hub, its name and commit.
    """

    folder: Path
    digest: str


def find_model(model: str, revision: str | None, where: str) -> ModelFiles:
    """The files of a model; a folder of this name wins over the hub, whose files are fetched where they are not here.

    Args:
        revision: the hub's branch, tag or commit; None for its newest.
        where: the setting that names it, for messages.

    Raises:
        ConfigError: no such folder, and no name of the hub; or a revision of a folder.
        CheckpointError: it has no weights in safetensors, or the hub has no such model.
        UnreachableError: the hub does not answer, and the model was not fetched before.
    """
    folder, commit = Path(model), None
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(f"{model} is a folder, which has no revision", where=f"{where}.revision")
    elif _NAME.fullmatch(model) is None or model.startswith("."):
        raise ConfigError(f"{model}: there is no such folder, and no model of the hub is called so", where=where)
    else:
        folder = _fetched(model, revision, where)
        commit = folder.name
    _refuse_incomplete(folder, model, where)
    return ModelFiles(folder, _digest(folder) if commit is None else f"{model}@{commit}")


def open_tokenizer(files: ModelFiles, where: str) -> Any:
    """The tokenizer beside a model, as the transformers library has it.

    Raises:
        CheckpointError: there is none.
    """
    from transformers import AutoTokenizer

    refuse_lack(files, _TOKENIZERS, "tokenizer", where)
    return AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)


def refuse_lack(files: ModelFiles, names: set[str], what: str, where: str) -> None:
    """Refuse a model beside which none of these files lies (CheckpointError)."""
    if not any((files.folder / name).is_file() for name in names):
        hint = f"save it beside the model, with save_pretrained; looked for: {', '.join(sorted(names))}"
        raise CheckpointError(f"{files.folder.name} has no {what}", where=where, hint=hint)


def refuse_random(missing: Iterable[str], where: str) -> None:
    """Refuse a model that needs weights of these names, which its files lack (CheckpointError)."""
    if names := sorted(missing):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise CheckpointError(f"its weights lack {', '.join(names[:3])}{more}, which would be random", where=where)


@contextmanager
def loading(model: str, where: str) -> Iterator[None]:
    """transformers neither logs nor shows bars meanwhile, and what it raises is told in one line.

    Raises:
        CheckpointError: in place of whatever was raised, but for our own errors and a lack of memory.
    """
    try:
        with _quiet():
            yield
    except (TeachclipError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        told = next((line for line in f"{error}".splitlines() if line.strip()), "")
        details = [f"{type(error).__name__}: {told}"]
        raise CheckpointError(f"{model} cannot be loaded", where=where, details=details) from error


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()


def _fetched(model: str, revision: str | None, where: str) -> Path:
    """The folder of the hub's cache that holds a revision; its name is the commit."""
    if revision is not None and _COMMIT.fullmatch(revision) and (held := _held(model, revision)) is not None:
        return held
    reason = why_out_of_reach(model, CONFIG)
    files = [f"*{suffix}" for suffix in sorted(_READ)]
    try:
        with quiet_hub():
            found = snapshot_download(
                model,
                revision=revision,
                allow_patterns=files,
                local_files_only=reason is not None,
            )
    except Exception as error:  # what is not there shows as many kinds of errors
        if reason is not None:
            what = f"{model} is no folder, was not fetched before, and the hub does not answer"
            hint = "fetch it where there is a network, and name its folder"
            raise UnreachableError(what, where=where, details=[reason], hint=hint) from error
        told = f"{type(error).__name__}: {error}".split("\n")[0]
        named = model if revision is None else f"{model} at revision {revision}"
        raise CheckpointError(f"the hub has no {named}", where=where, details=[told]) from error
    return Path(found)


def _held(model: str, commit: str) -> Path | None:
    """A commit that was fetched before, with its weights."""
    try:
        folder = Path(snapshot_download(model, revision=commit, local_files_only=True))
    except (OSError, ValueError):
        return None
    return folder if any(folder.glob("*.safetensors")) else None


def _refuse_incomplete(folder: Path, model: str, where: str) -> None:
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{model} has no {CONFIG}: not a model that save_pretrained wrote", where=where)
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickled:
        what = f"{model} has pickled weights only ({', '.join(pickled[:3])}), which run code when they are read"
        raise CheckpointError(what, where=where, hint=_NO_PICKLES)
    raise CheckpointError(f"{model} has no weights (model.safetensors)", where=where)


def _digest(folder: Path) -> str:
    """Hash of names and bytes of everything that a model is read from; where the folder lies does not count."""
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(path for part in (folder, *_parts(folder)) for path in part.iterdir()):
        if path.is_file() and path.suffix in _READ:
            with path.open("rb") as file:
                own = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
            total.update(f"{path.relative_to(folder)} {own.hexdigest()};".encode())
    return total.hexdigest()


def _parts(folder: Path) -> list[Path]:
    """Folders of a model of sentence-transformers that is made of several modules."""
    if not (folder / MODULES).is_file():
        return []
    modules = json.loads((folder / MODULES).read_text("utf-8"))
    parts = [folder / str(module.get("path", "")) for module in modules if isinstance(module, dict)]
    return [part for part in parts if part.is_dir() and part != folder]
