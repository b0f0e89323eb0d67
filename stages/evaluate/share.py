"""A trained model as a repository that others load by `hf:OWNER/NAME`: a checkpoint, its configuration, its card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ...cache.storage.publish import publish, publishing
from ...configs.schema import SHARED
from ...errors import CheckpointError, ConfigError, UnreachableError
from ..models.checkpoints.files import load_network, network_digest, save_network
from ..models.checkpoints.shared import FILE
from ..models.clip.hub import quiet_hub, why_out_of_reach
from .card import card, made_from, sources

CARD = "README.md"
SETTINGS = "config.json"


@dataclass(frozen=True)
class Shared:
    """What was written, and where.

    Attributes:
        name: by which others load it; folder: with the repository's files.
        size: bytes of the checkpoint.
        pushed: the address it can be seen at, None where it was only written.
        unlicensed: data and teachers whose licence nobody has named.
    """

    name: str
    folder: str
    size: int
    pushed: str | None
    unlicensed: tuple[str, ...]


def share(
    run: Path,
    repository: str,
    folder: Path,
    *,
    license: str | None = None,
    licenses: Mapping[str, str] | None = None,
    use: Sequence[str] = (),
    push: bool = True,
    private: bool = False,
) -> Shared:
    """Write a model's repository into a folder, and push it unless that is all.

    Args:
        run: a run folder or a checkpoint; of a published one it becomes ours.
        repository: OWNER/NAME, on the hub of `HF_ENDPOINT`.
        folder: the files; those of the same names are replaced.
        license: of the model; licenses: of its data (`data`, or the set's name), of teachers by name, of the `trunk`.
        use: commands that the card shows.

    Raises:
        CheckpointError: the model cannot be loaded.
        ConfigError: that is no repository's name; a licence is of something that the model was not made from.
        UnreachableError: the hub does not answer or refuses; the folder stays.
    """
    repository = repository.removeprefix(SHARED)
    _refuse_name(repository)
    network, given = load_network(run), dict(licenses or {})
    known = sources(made_from(run))
    if unknown := sorted(given.keys() - set(known)):
        raise ConfigError(
            f"the model was not made from {unknown[0]}",
            hint=f"it was made from {', '.join(known) or 'what its file does not say'}",
        )
    name = f"{SHARED}{repository}"
    with publishing(folder / FILE) as temporary:
        save_network(network, temporary)
    settings = {"library": "teachclip", "network": network.config.model_dump(mode="json")}
    publish(folder / SETTINGS, json.dumps(settings, indent=1).encode())
    publish(folder / CARD, card(run, network, network_digest(network), name, license, given, use).encode())
    address = _pushed(folder, repository, private) if push else None
    unlicensed = tuple(source for source in known if source not in given)
    return Shared(name, str(folder), (folder / FILE).stat().st_size, address, unlicensed)


def _refuse_name(repository: str) -> None:
    try:
        validate_repo_id(repository)
        if repository.count("/") != 1:
            raise HFValidationError("no owner")
    except HFValidationError:
        raise ConfigError("this is no repository's name", where=repository, hint="the form is OWNER/NAME") from None


def _pushed(folder: Path, repository: str, private: bool) -> str:
    if why := why_out_of_reach(repository, FILE):
        raise UnreachableError(why, where=repository, hint=f"what is to be pushed lies in {folder}; push it later")
    api, files = HfApi(), [FILE, SETTINGS, CARD]
    try:
        with quiet_hub():
            address = api.create_repo(repository, exist_ok=True, private=private)
            api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                allow_patterns=files,
                commit_message="Model and card by teachclip",
            )
        return str(address)
    except HfHubHTTPError as error:
        hint = f"log in with `hf auth login` as somebody who may write there; the files lie in {folder}"
        raise UnreachableError(
            f"the hub refuses: {str(error).partition('\n')[0]}", where=repository, hint=hint
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot be pushed: {error}", where=repository, hint="push it again") from error
