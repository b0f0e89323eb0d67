"""Ordinary H.264 decodes to what decord makes of it as others call it: seeking to the frames wanted."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.video.decode import read_video
from teachclip.stages.data.video.resize import resize_crop

CLIPS = ("AskAnything_yoga.mp4", "DRL_msrvtt_video7500.mp4", "VideoLLaVA_sample_demo_1.mp4", "bikes.mp4")
# In a process of its own: as it is imported here, its library is there for the whole process.
DECORD = """
import decord, numpy, sys
reader = decord.VideoReader(sys.argv[1], num_threads=1)
times = reader.get_frame_timestamp(numpy.arange(len(reader)))[:, 0]
wanted = [int(abs(times - times[0] - float(seconds)).argmin()) for seconds in sys.argv[3:]]
numpy.save(sys.argv[2], numpy.stack([reader[number].asnumpy() for number in wanted]))
"""


@pytest.mark.parametrize("name", CLIPS)
def test_chosen_frames_are_those_of_decord(shared: Path, tmp_path: Path, name: str) -> None:
    path = shared / "data/videos" / name
    record = read_video(name, path, PrepareConfig(image_size=64, max_frames=6))
    assert record.status.status == "ok"
    command = [sys.executable, "-c", DECORD, str(path), str(tmp_path / "d.npy"), *map(str, record.times)]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    for ours, theirs in zip(record.images, np.load(tmp_path / "d.npy"), strict=True):
        expected = resize_crop(theirs, 64).transpose(2, 0, 1)
        assert np.abs(ours.astype(float) - expected).mean() < 1.5
