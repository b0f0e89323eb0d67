"""What can be configured: one file per section of the YAML."""

from .config import CHECKPOINT_PATHS, FILE_PATHS, READ_PATHS, SHARED, Config, cut_name
from .data import DataConfig
from .demo import ShapesConfig
from .denoise import DenoiseConfig
from .evaluate import EvaluateConfig
from .losses import LossConfig
from .network import (
    DrlConfig,
    ExpertsConfig,
    ModalityConfig,
    NetworkConfig,
    PixelConfig,
    TrunkConfig,
    TrunkSizes,
    Ts2NetConfig,
    WordsConfig,
)
from .prepare import ExpertConfig, FeaturesConfig, PrepareConfig, TextEncoderConfig
from .score import CrossEncoderConfig, ScoreConfig, TeacherConfig, TransformersConfig
from .section import Name, Section
from .train import OptimConfig, TrainConfig

__all__ = [
    "CHECKPOINT_PATHS",
    "FILE_PATHS",
    "READ_PATHS",
    "SHARED",
    "Config",
    "CrossEncoderConfig",
    "DataConfig",
    "DenoiseConfig",
    "DrlConfig",
    "EvaluateConfig",
    "ExpertConfig",
    "ExpertsConfig",
    "FeaturesConfig",
    "LossConfig",
    "ModalityConfig",
    "Name",
    "NetworkConfig",
    "OptimConfig",
    "PixelConfig",
    "PrepareConfig",
    "ScoreConfig",
    "Section",
    "ShapesConfig",
    "TeacherConfig",
    "TextEncoderConfig",
    "TrainConfig",
    "TransformersConfig",
    "TrunkConfig",
    "TrunkSizes",
    "Ts2NetConfig",
    "WordsConfig",
    "cut_name",
]
