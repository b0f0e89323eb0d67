"""Workers of a cluster that are not like the others: what of them is told."""

from dataclasses import replace

from teachclip.stages.runtime.cluster import Node, _unlike, versions

HERE = Node("here", versions(), "cpu")


def test_nodes_of_one_environment_and_device_are_alike() -> None:
    assert _unlike(replace(HERE, name="there"), HERE) == ()


def test_other_versions_and_devices_are_named() -> None:
    theirs = {**versions(), "torch": "2.9.0"}
    del theirs["numpy"]
    told = _unlike(Node("there", theirs, "NVIDIA H100"), HERE)
    assert told == (
        f"torch 2.9.0, here {versions()['torch']}",
        f"numpy is not installed, here {versions()['numpy']}",
        "computes on NVIDIA H100, others on cpu",
    )
