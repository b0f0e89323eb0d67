"""`teachclip cache`: the score store as something to look at, check, mend, hand on and tidy."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .....errors import ConfigError, TeachclipError
from ....wording import size
from ...shell.paths import any_store, store_to_read
from ...shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ...verbs import score
from . import report as cache_report
from . import shown as pages

if TYPE_CHECKING:
    from .....cache.scores.exchange.packing import Export, Import, Packed
    from .....stages.score.rescore import Rescored
    from ...shell.output import Output

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, check, repair, compare, move and remove cached scores."
)

Store = Annotated[
    str,
    typer.Argument(metavar="STORE", help="A score store, such as work/scores.zarr.", callback=any_store),
]
AnyStore = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="A score store: a folder, or s3://, gs://, https:// where one lies.",
        callback=store_to_read,
    ),
]
Teacher = Annotated[str, typer.Argument(metavar="TEACHER", help="Its name in the store.")]
AnyTeacher = Annotated[
    str | None, typer.Argument(metavar="[TEACHER]", help="Its name in the store; by default all of them.")
]
Packed_ = Annotated[
    str, typer.Argument(metavar="OUT", help="The folder that holds the packed scores, or s3://, gs://, https://.")
]
Only = Annotated[str | None, typer.Option("--teacher", metavar="TEACHER", help="Only this one.")]
Age = Annotated[
    float, typer.Option("--age", min=0, metavar="SECONDS", help="Leave alone what was written to more recently.")
]

LS = examples("teachclip cache ls work/scores.zarr", "teachclip cache ls work/scores.zarr --json")
INFO = examples("teachclip cache info work/scores.zarr", "teachclip cache info work/scores.zarr xclip --json")
ESTIMATE = examples(
    "teachclip cache estimate own_videos.yaml",
    "teachclip cache estimate own_videos.yaml --like trial/scores.zarr:xclip",
)
VERIFY = examples(
    "teachclip cache verify work/scores.zarr",
    "teachclip cache verify work/scores.zarr xclip --full",
    "teachclip cache verify work/scores.zarr --rescore 64 --config own_videos.yaml",
)
EXTEND = examples("teachclip cache extend own_videos.yaml")
REPAIR = examples("teachclip cache repair own_videos.yaml", "teachclip cache repair own_videos.yaml --teacher xclip")
DIFF = examples("teachclip cache diff work/scores.zarr:xclip work/scores.zarr:ts2net")
EXPORT = examples("teachclip cache export work/scores.zarr xclip xclip-scores")
IMPORT = examples("teachclip cache import xclip-scores work/scores.zarr")
MERGE = examples("teachclip cache merge work/scores.zarr machine1/scores.zarr machine2/scores.zarr")
RM = examples("teachclip cache rm work/scores.zarr ts2net --yes")
GC = examples("teachclip cache gc work/scores.zarr --dry-run", "teachclip cache gc work/scores.zarr")


@app.command(epilog=LS)
def ls(store: AnyStore, json: AsJson = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """List the teachers of a store: how much of what, and how far."""
    with running("cache", json, quiet, debug) as output:
        from .....cache.scores.store import ScoreStore
        from .....cache.scores.upkeep.catalog import summaries

        found = summaries(ScoreStore.open(store))
        output.result({"store": store, "teachers": found}, *pages.listed(found))


@app.command(epilog=INFO)
def info(
    store: AnyStore, teacher: AnyTeacher = None, json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Tell what scores were made from, by whom, and what is kept.

    The identity is everything that scores depend on besides captions and frames, which a tile's checksum stands for.
    """
    with running("cache", json, quiet, debug) as output:
        from .....cache.scores.store import ScoreStore
        from .....cache.scores.upkeep.catalog import teacher_info

        opened = ScoreStore.open(store)
        found = [teacher_info(opened, name) for name in ([teacher] if teacher else opened.teachers)]
        output.result({"store": store, "teachers": found}, *pages.described(found))


@app.command(epilog=ESTIMATE)
def estimate(
    config: ConfigFile,
    like: Annotated[
        str | None, typer.Option("--like", metavar="STORE:TEACHER", help="Take the speed measured where this was made.")
    ] = None,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say how many bytes and pairs `score` will make; writes nothing and loads no teacher but a re-ranker.

    Bytes are exact, features of videos not counted. A time is only told where a speed was measured: in shards that are
    complete, or with --like in another store that was scored on the same machine. A re-ranker scores 64 pairs for it.
    """
    with running("cache", json, quiet, debug, config, sets) as output:
        settings = load_config(config, sets or ())
        from .....cache.scores.upkeep.compare import open_caches
        from .....stages.score.estimate import estimate_scores

        found = estimate_scores(settings, open_caches(like, like)[0] if like else None)
        output.result(found, *pages.estimated(found))


@app.command(epilog=VERIFY)
def verify(
    store: AnyStore,
    teacher: AnyTeacher = None,
    full: Annotated[bool, typer.Option("--full", help="Read every byte and look at every value.")] = False,
    rescore: Annotated[
        int | None,
        typer.Option("--rescore", metavar="N", min=1, help="Also score N captions with N videos again."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="CONFIG", help="Names the teachers, for --rescore.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which captions and videos --rescore takes.")] = 0,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check a store; exits with 1 when something is damaged.

    By default documents, markers and sizes; --full compares the hash of every file, decodes every chunk under its
    checksum and looks at every value. What is not scored yet is no damage; the store may be written meanwhile.
    --rescore asks the teachers again, from the frames on, and exits with 1 when they say something else.
    """
    with running("cache", json, quiet, debug, config, sets) as output:
        from .....cache.scores.upkeep.check import Check
        from .....cache.storage.locations import location_of

        if rescore and config is None:
            raise ConfigError("--rescore needs to know the teachers", hint="name the configuration: --config CONFIG")
        check = Check(store, teacher, full)
        with output.progress(f"checking {store}", check.units, "file") as progress:
            result = check.run(progress.advance)
        again: list[Rescored] = []
        if config is not None and rescore and not result.damage:
            settings = load_config(config, sets or ())
            there = Path(store).absolute() if isinstance(location_of(store), Path) else store
            this = settings.score.model_copy(update={"store": there})
            settings = settings.model_copy(update={"score": this})
            with output.waiting("loading"):
                from .....stages.score.rescore import rescore as run

            again = run(settings, teacher, rescore, seed, output)
        shown = {**asdict(result), "rescored": again} if rescore else result
        output.result(shown, *pages.checked(result), *pages.rescored(again))
        if result.damage or not all(each.agrees for each in again):
            raise typer.Exit(1)


@app.command(epilog=EXTEND)
def extend(
    config: ConfigFile, sets: Overrides = None, json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Score the captions and videos that a store does not have yet; what it has stays as it is.

    What `teachclip score` does with a store that is there; a store that is not there is an error here.
    """
    with running("cache", json, quiet, debug, config, sets) as output:
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from .....cache.scores.store import ScoreStore
            from .....stages.score.stage import score as run

        ScoreStore.open(settings.score_store)
        result = run(settings, output)
        output.result(result, *score.shown(result))


@app.command(epilog=REPAIR)
def repair(
    config: ConfigFile,
    teacher: Only = None,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find damaged shards, take them out, and score them again.

    Checks every byte first, as `verify --full` does. What is left is bit for bit as it was; on the same machine the
    repaired shards are, too.
    """
    with running("cache", json, quiet, debug, config, sets) as output:
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from .....stages.score.repair import repair as run

        result = run(settings, output, teacher)
        output.result(result, *pages.repaired(result))


@app.command(epilog=DIFF)
def diff(
    first: Annotated[
        str, typer.Argument(metavar="STORE_A[:TEACHER]", help="A store and a teacher.", callback=any_store)
    ],
    second: Annotated[
        str, typer.Argument(metavar="STORE_B[:TEACHER]", help="What it is compared with.", callback=any_store)
    ],
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare two caches, or two teachers of one: where they differ, and how well they agree; folders or addresses.

    Labels (score x scale) of the texts and videos that both hold; what is not scored yet is left out.
    """
    with running("cache", json, quiet, debug) as output:
        from .....cache.scores.upkeep.compare import Diff, open_caches

        compared = Diff(*open_caches(first, second))
        with output.progress("comparing", len(compared.texts), "text") as progress:
            result = compared.run(progress.advance)
        output.result(result, *pages.compared(result))


app.command(epilog=cache_report.EXAMPLES)(cache_report.report)


@app.command(epilog=EXPORT)
def export(
    store: AnyStore,
    teacher: Teacher,
    out: Packed_,
    partial: Annotated[bool, typer.Option("--partial", help="Also what is complete of unfinished tiles.")] = False,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Pack a teacher's finished scores into a folder of their own, with a hash of every file.

    OUT/scores.zarr is a store that can be read as it is; OUT/manifest.json says what belongs to it. Features of videos
    are left out; they are made again when more is scored. OUT may be an address, such as s3://bucket/xclip: every file
    is read back there, the manifest comes last, and without it half an upload is no export.
    """
    with running("cache", json, quiet, debug) as output:
        from .....cache.scores.exchange.packing import Export

        _pack(output, Export(store, teacher, out, partial), "packing", "packed into")


@app.command("import", epilog=IMPORT)
def import_(out: Packed_, store: Store, json: AsJson = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Take packed scores into a store, which is made when there is none.

    Every name, size and hash is compared with the manifest; links, foreign files and changed bytes are refused, and
    nothing in the store is ever replaced.
    """
    with running("cache", json, quiet, debug) as output:
        from .....cache.scores.exchange.packing import Import

        _pack(output, Import(out, store), "unpacking", "taken in from")


def _pack(output: "Output", work: "Export | Import", doing: str, done: str) -> None:
    with output.progress(doing, work.units, "shard") as progress:
        result: Packed = work.run(progress.advance)
    output.result(result, *pages.packed(result, done))


@app.command(epilog=MERGE)
def merge(
    store: Store,
    sources: Annotated[list[str], typer.Argument(metavar="FROM...", help="Stores that give, or their addresses.")],
    teacher: Only = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bring shards that were scored on several machines together in STORE.

    Teachers and tiles must be the same; else the fields that differ are named and nothing is written. Where both have a
    shard, STORE keeps its own; other bits are reported. Exits with 1 when shards of FROM are damaged.
    """
    with running("cache", json, quiet, debug) as output:
        from .....cache.scores.exchange.merging import Merge

        merging = Merge(store, sources, teacher)
        with output.progress("merging", merging.units, "shard") as progress:
            result = merging.run(progress.advance)
        output.result({"store": store, "teachers": result}, *pages.merged(result))
        if any(each.refused for each in result):
            raise typer.Exit(1)


@app.command(epilog=RM)
def rm(
    store: Store,
    teacher: Teacher,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    age: Age = 3600.0,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Remove a teacher's scores, after asking.

    What is being written is refused; a training that reads these scores stops with an error.
    """
    with running("cache", json, quiet, debug) as output:
        from .....cache.scores.upkeep.removal import refuse_removal, remove_teacher

        refuse_removal(store, teacher, age)
        if not yes:
            _ask(f"remove the scores of {teacher} from {store}?")
        freed = remove_teacher(store, teacher, age)
        output.result({"store": store, "teacher": teacher, "bytes": freed}, f"removed {teacher}: {size(freed)}")


def _ask(question: str) -> None:
    if not _somebody():
        raise ConfigError("nobody is there to ask", hint="to remove without asking: --yes")
    if not typer.confirm(question, err=True):
        raise TeachclipError("nothing was removed")


def _somebody() -> bool:
    return sys.stdin.isatty()


@app.command(epilog=GC)
def gc(
    store: Store,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    age: Age = 3600.0,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Remove what killed writers left, and features of videos that no tile needs."""
    with running("cache", json, quiet, debug) as output:
        from .....cache.scores.upkeep.removal import collect_garbage

        result = collect_garbage(store, age, dry)
        output.result(result, *pages.collected(result, dry))
