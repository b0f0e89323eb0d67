"""Models that people share: `hf:OWNER/NAME`, a repository of a Hugging Face hub with a checkpoint of ours in it."""

import re
from functools import cache
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ....configs.schema import SHARED
from ....errors import CheckpointError, UnreachableError
from ..clip.hub import quiet_hub, why_out_of_reach

FILE = "model.safetensors"
"""The checkpoint, as `files.save_network` writes it; nothing else of a repository is read."""

_FORM = "the form is hf:OWNER/NAME or hf:OWNER/NAME@REVISION"
_COMMIT = re.compile("[0-9a-f]{40}")


def is_shared(name: str | Path) -> bool:
    """Whether a model's name is that of a shared one."""
    return str(name).startswith(SHARED)


def is_there(name: str | Path) -> bool:
    """Whether a model can be read: its file or folder is there, or it is a shared one, which the hub knows of."""
    return is_shared(name) or Path(name).exists()


def fetched(name: str) -> Path:
    """The checkpoint file of `hf:OWNER/NAME[@REVISION]`, fetched once and kept where the hub's own library keeps files.

    A revision is a branch, a tag or a commit. The hub is asked for the newest once a process, so that all that a
    command does is of one model; a commit that was fetched before is not asked for.

    Raises:
        CheckpointError: that is no such name, or there is no such repository, revision or checkpoint.
        UnreachableError: the hub does not answer, and the file was not fetched before.
    """
    return _fetched(name, constants.HF_HUB_CACHE)


@cache
def _fetched(name: str, kept_in: str) -> Path:
    repository, _, revision = name.removeprefix(SHARED).partition("@")
    try:
        here = try_to_load_from_cache(repository, FILE, cache_dir=kept_in, revision=revision or None)
        if isinstance(here, str) and _COMMIT.fullmatch(revision):
            return Path(here)
        if why := why_out_of_reach(repository, FILE):
            if isinstance(here, str):
                return Path(here)
            hint = "fetch it on another machine with `hf download`, and name the file; or check the network"
            raise UnreachableError(why, where=name, hint=hint)
        with quiet_hub():
            return Path(hf_hub_download(repository, FILE, cache_dir=kept_in, revision=revision or None))
    except HFValidationError:
        raise CheckpointError("this is no name of a repository", where=name, hint=_FORM) from None
    except RevisionNotFoundError:
        raise CheckpointError(f"there is no revision {revision}", where=name, hint=_FORM) from None
    except RepositoryNotFoundError:
        hint = "look at its name; a private one needs `hf auth login` first"
        raise CheckpointError("the hub has no such repository, or does not show it", where=name, hint=hint) from None
    except EntryNotFoundError:
        hint = "an open_clip model on the hub is named openclip:hf-hub:OWNER/NAME/FILE"
        raise CheckpointError(f"there is no {FILE} in this repository", where=name, hint=hint) from None
    except HfHubHTTPError as error:
        raise UnreachableError(f"the hub refuses: {str(error).partition('\n')[0]}", where=name) from None
