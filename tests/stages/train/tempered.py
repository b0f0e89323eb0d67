"""A loss with a parameter that trains; processes that many_training.py starts find it beside that."""

import torch
from torch import Tensor


class Tempered(torch.nn.Module):
    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.log_temperature = torch.nn.Parameter(torch.tensor(start).log())

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        target = (teacher / self.log_temperature.exp()).softmax(1)
        return -(target * student.log_softmax(1)).sum(1).mean()
