"""What can be configured: one file per section of the YAML."""

from .config import CHECKPOINT_PATHS, FILE_PATHS, READ_PATHS, Config
from .data import DataConfig
from .demo import ShapesConfig
from .denoise import DenoiseConfig
from .losses import LossConfig
from .network import DrlConfig, NetworkConfig, PixelConfig, TrunkConfig, TrunkSizes, Ts2NetConfig
from .prepare import PrepareConfig
from .score import ScoreConfig, TeacherConfig
from .section import Name, Section
from .train import OptimConfig, TrainConfig

__all__ = [
    "CHECKPOINT_PATHS",
    "FILE_PATHS",
    "READ_PATHS",
    "Config",
    "DataConfig",
    "DenoiseConfig",
    "DrlConfig",
    "LossConfig",
    "Name",
    "NetworkConfig",
    "OptimConfig",
    "PixelConfig",
    "PrepareConfig",
    "ScoreConfig",
    "Section",
    "ShapesConfig",
    "TeacherConfig",
    "TrainConfig",
    "TrunkConfig",
    "TrunkSizes",
    "Ts2NetConfig",
]
