"""What can be configured: one file per section of the YAML."""

from .config import CHECKPOINT_PATHS, FILE_PATHS, READ_PATHS, Config
from .data import DataConfig
from .demo import ShapesConfig
from .denoise import DenoiseConfig
from .losses import LossConfig
from .network import DrlConfig, NetworkConfig, TrunkConfig, TrunkSizes, Ts2NetConfig
from .prepare import PrepareConfig
from .score import CrossEncoderConfig, ScoreConfig, TeacherConfig, TransformersConfig
from .section import Name, Section
from .train import OptimConfig, TrainConfig

__all__ = [
    "CHECKPOINT_PATHS",
    "FILE_PATHS",
    "READ_PATHS",
    "Config",
    "CrossEncoderConfig",
    "DataConfig",
    "DenoiseConfig",
    "DrlConfig",
    "LossConfig",
    "Name",
    "NetworkConfig",
    "OptimConfig",
    "PrepareConfig",
    "ScoreConfig",
    "Section",
    "ShapesConfig",
    "TeacherConfig",
    "TrainConfig",
    "TransformersConfig",
    "TrunkConfig",
    "TrunkSizes",
    "Ts2NetConfig",
]
