"""Stage two: train a student from cached teacher scores, without teachers, or a teacher by itself.

TeachCLIP section 3; the recipes are in configs/recipes.
"""

from contextlib import nullcontext
from dataclasses import asdict

from ...configs.changed_defaults import with_values
from ...configs.schema import Config, TrainConfig
from ...plurals import counted
from ..runtime.device import choose_device, deterministic
from ..runtime.processes import World, joined
from ..runtime.reporting import Reporter, Silent
from ..runtime.run_folder import RunFolder, told_former
from ..runtime.stopping import StopRequest
from .losses.own import loss_identity
from .run import TrainResult, TrainRun
from .training_data import open_training_data


def train(config: Config, reporter: Reporter | None = None, stop: StopRequest | None = None) -> TrainResult:
    """Train what `config.train` describes; a killed run goes on, a finished one is only reported.

    Args:
        stop: a request to stop where the run can go on later.

    Raises:
        DataError: nothing to train on.
        CacheError: frames or scores are missing or incomplete.
        CacheMismatchError: the run folder, the frames or the scores were made from something else.
        TrainingError: the loss is not finite or explodes, a checkpoint cannot be written, another process trains this
            run, or one of its own ended.
        StoppedEarly: `stop` asked for it; the run is saved.
    """
    with joined(config.train.device) as world:
        return _train(config, reporter if reporter and world.main else Silent(), world, stop)


def _train(config: Config, reporter: Reporter, world: World, stop: StopRequest | None) -> TrainResult:
    folder = RunFolder(config.run_folder)
    former = world.broadcast(folder.former_defaults(config) if world.main else None) or {}
    for told in told_former(former, config):
        reporter.info(told)
    config = with_values(config, former)
    data = open_training_data(config, reporter)
    identity = data.identity() | loss_identity(config.train.loss) if world.main else {}
    with folder.locked() if world.main and folder.result is None else nullcontext():
        if world.main:
            folder.claim(config, identity)
        if (done := world.broadcast(folder.result if world.main else None)) is not None:
            folder.forget_states()
            return TrainResult(**{**done, "teachers": tuple(done["teachers"]), "already_done": True})
        if data.train.left_out:
            one = "training video has no usable frames and is left out"
            many = "training videos have no usable frames and are left out"
            reporter.warn(counted(data.train.left_out, one, many))
        if data.draws is not None:
            reporter.info(f"each step sees {data.draws.count} of {data.unlabelled.told}")
        if told := _remark_on_weights(config.train):
            reporter.info(told)
        with deterministic(choose_device(config.train.device), config.train.deterministic):
            result = TrainRun(config, data, folder, reporter).go(stop)
        if world.main:
            folder.finish(asdict(result))
        return result


def _remark_on_weights(config: TrainConfig) -> str:
    """What is said of weights with which InfoNCE was seen to undo what coarse teaching gave; nothing of others."""
    loss = config.loss
    if not config.teachers or not loss.coarse or loss.infonce < loss.coarse:
        return ""
    return (
        f"InfoNCE weighs {loss.infonce:g} and coarse teaching {loss.coarse:g}: with equal weights nothing was left of "
        "what teaching gave where own captions are few, with 0.2 to 1 most of it (docs/guide/teaching.md)"
    )
