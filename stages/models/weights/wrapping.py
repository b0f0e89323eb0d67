"""What people's training leaves around a network's tensors: dicts that hold them, and prefixes of their names."""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from ....errors import CheckpointError
from ....plurals import counted
from .names import StateDict

# Keys under which training scripts keep a network beside everything else; the first goes before the others.
_HOLDERS = ("state_dict", "model_state_dict", "model", "net", "network", "module")

# Parts of names that a wrapper puts in wherever it stands: around the network, or around a module inside it.
_WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
# First parts of names, taken off where every name has them.
_PREFIXES = {
    "module": "data-parallel training",
    "model": "a module that holds the network, as Lightning's do",
    "net": "a module that holds the network, as Lightning's do",
    "network": "a module that holds the network, as Lightning's do",
}
_FLAT = "_flat_param"  # FSDP's own pieces, of many tensors each
_NESTED = 3  # dicts in each other, at most
_ANCHORS = ("visual.class_embedding", "vision_model.embeddings.class_embedding")  # every CLIP has one


def unwrapped(value: object, where: str) -> tuple[StateDict, tuple[str, ...]]:
    """The tensors of a network by its own names, and what was around them, in words.

    Args:
        value: what a file holds.

    Raises:
        CheckpointError: no dict of tensors under the names above, or one of FSDP's pieces.
    """
    told: list[str] = []
    for _ in range(_NESTED):
        key = _holder(value, where)
        if key is None:
            break
        assert isinstance(value, Mapping)
        beside = ", ".join(str(other) for other in value if other != key)
        told.append(f"the tensors lie under `{key}`" + (f", beside {beside}" if beside else ""))
        value = value[key]
    if not isinstance(value, Mapping) or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise CheckpointError(
            "this file holds no state_dict: names with tensors",
            where=where,
            details=_foreign(value),
            hint=_elsewhere(value),
        )
    state = {str(name): tensor for name, tensor in value.items()}
    if any(name.split(".")[-1].startswith(_FLAT) for name in state):
        raise CheckpointError(
            "these are FSDP's own pieces, which have no names of tensors",
            where=where,
            hint="save the full state: StateDictType.FULL_STATE_DICT, or get_model_state_dict with full_state_dict",
        )
    state = _without_wrappers(state, told, where)
    while prefix := _common_prefix(state):
        told.append(f"every name starts with `{prefix}.`, from {_PREFIXES[prefix]}")
        state = {name.removeprefix(f"{prefix}."): tensor for name, tensor in state.items()}
    return state, tuple(told)


def networks_in(names: Iterable[str]) -> tuple[str, ...]:
    """What stands before the names of each CLIP, and of the network around it, where it is not the first: `student.`
    for `student.clip.visual.class_embedding`, and `` for `clip.visual.class_embedding`."""
    found = {name.removesuffix(anchor) for name in names for anchor in _ANCHORS if f".{name}".endswith(f".{anchor}")}
    return tuple(sorted(prefix[: -len(mark)] if mark else prefix for prefix in found for mark in [_mark(prefix)]))


def _mark(prefix: str) -> str:
    return next((mark for mark in ("clip.", "trunk.") if f".{prefix}".endswith(f".{mark}")), "")


def _holder(value: object, where: str) -> str | None:
    """The key under which the tensors lie, where they do not lie in `value` itself."""
    if not isinstance(value, Mapping):
        return None
    keys = [key for key in _HOLDERS if _leads_to_tensors(value.get(key))]
    if len(keys) > 1 and keys[0] != _HOLDERS[0]:
        raise CheckpointError(
            f"tensors lie under {' and '.join(f'`{key}`' for key in keys)}",
            where=where,
            hint="save the state_dict that is meant, alone",
        )
    return keys[0] if keys else None


def _leads_to_tensors(value: object, depth: int = 1) -> bool:
    if _is_state(value):
        return True
    inner = [value.get(key) for key in _HOLDERS] if isinstance(value, Mapping) and depth < _NESTED else []
    return any(_leads_to_tensors(each, depth + 1) for each in inner)


def _foreign(value: object) -> list[str]:
    """What lies among the tensors, where most entries are tensors."""
    if not isinstance(value, Mapping):
        return []
    told = []
    for entries in (value, *(value[key] for key in _HOLDERS if isinstance(value.get(key), Mapping))):
        foreign = [f"{name} ({type(each).__name__})" for name, each in entries.items() if not isinstance(each, Tensor)]
        if foreign and 2 * len(foreign) < len(entries):
            more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
            told.append(
                f"among its {counted(len(entries), 'entry is', 'entries are')} "
                f"others than tensors: {', '.join(foreign[:3])}{more}"
            )
    return told


def _elsewhere(value: object) -> str | None:
    """Where tensors lie, under a key that nobody could know."""
    keys = list(_keys(value, ""))
    if not keys:
        return None
    return f"tensors lie under {' and '.join(f'`{key}`' for key in keys[:3])}: save the one that is meant, alone"


def _keys(value: object, above: str, depth: int = 0) -> Iterator[str]:
    """Keys, in dots where dicts lie in each other, under which there is nothing but tensors."""
    if isinstance(value, Mapping) and depth <= _NESTED:
        for key, inner in value.items():
            if _is_state(inner):
                yield f"{above}{key}"
            else:
                yield from _keys(inner, f"{above}{key}.", depth + 1)


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def _without_wrappers(state: StateDict, told: list[str], where: str) -> StateDict:
    for part, wrapper in _WRAPPERS.items():
        having = [name for name in state if part in name.split(".")]
        if not having:
            continue
        every = "every name has" if len(having) == len(state) else f"{len(having)} of {len(state)} names have"
        told.append(f"{every} `{part}.` inside, from {wrapper}")
        plain = {".".join(each for each in name.split(".") if each != part): tensor for name, tensor in state.items()}
        if len(plain) < len(state):
            raise CheckpointError(f"tensors are there twice, with and without `{part}.` in their names", where=where)
        state = plain
    return state


def _common_prefix(state: StateDict) -> str | None:
    firsts = {name.partition(".")[0] for name in state}
    return next((prefix for prefix in _PREFIXES if firsts == {prefix} and all("." in name for name in state)), None)
