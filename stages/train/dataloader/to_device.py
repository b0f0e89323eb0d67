"""The next batch copied to the GPU while the present one is used."""

from collections.abc import Iterable, Iterator

import torch

from .batch import Batch


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches on `device`; the next one is copied to a GPU while the present one is used.

    Copies have a stream of their own; the present one waits for them on the GPU, not here. An error of `batches` is
    raised where its batch was due.
    """
    if device.type != "cuda":
        return (batch.to(device) for batch in batches)
    return _copied_ahead(iter(batches), device)


def _copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    copies.wait_stream(torch.cuda.current_stream(device))  # frames that are kept on the GPU have to be there

    def copied() -> tuple[Batch, torch.cuda.Event] | None:
        if (batch := next(batches, None)) is None:
            return None
        with torch.cuda.stream(copies):
            return batch.to(device), copies.record_event()

    ahead, failed = copied(), None
    while ahead is not None:
        batch, done = ahead
        try:
            ahead = copied()
        except Exception as error:  # of the next batch
            ahead, failed = None, error
        present = torch.cuda.current_stream(device)
        present.wait_event(done)
        batch.keep_for(present)
        yield batch
    if failed is not None:
        raise failed
