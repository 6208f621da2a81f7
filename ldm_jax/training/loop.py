"""The one training loop: jits, donates, shards, logs, validates, saves, resumes, stops."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ldm_jax import config as cfg
from ldm_jax.core import flops, signals
from ldm_jax.core.command import SAVED, Failed, out_of_memory, say
from ldm_jax.core.compiler_options import compiler_options
from ldm_jax.core.distributed import wait_for_all
from ldm_jax.core.progress import Progress
from ldm_jax.core.sharding import (
    batch_sharding,
    check_batch,
    free_layouts,
    local_rows,
    make_mesh,
    replicated,
    state_sharding,
    to_global,
)
from ldm_jax.core.stopping import Stopping, stopping
from ldm_jax.data.buckets import buckets_of
from ldm_jax.data.loader import make_loader, validation_batches
from ldm_jax.images.plot import number
from ldm_jax.images.sheet import sheet
from ldm_jax.training.evaluator import Evaluator, Judge, added, means
from ldm_jax.training.metrics import MetricWriter
from ldm_jax.training.optim import learning_rate, schedule_note
from ldm_jax.training.parameter_counts import parameters_note
from ldm_jax.training.profile import Profile
from ldm_jax.training.stage import Stage
from ldm_jax.training.state import TrainState
from ldm_jax.training.step_memory import SMALLER, memory_note
from ldm_jax.training.time_budget import (
    TimeBudget,
    memory_in_use,
    slowest_process,
    speed,
    told_times,
)
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.consistency import check_workdir
from ldm_jax.workdir.lock import locked
from ldm_jax.workdir.run_config import write_config


class Interrupted(Failed):
    """SIGTERM or SIGINT came, or the time is over; the state is saved."""

    status = SAVED


class NonFiniteLoss(Failed):
    """A loss or gradient is not finite; the last good checkpoint is left as it was."""


def fit(
    run: cfg.Run,
    workdir: Path,
    make_stage: Callable[[jax.sharding.Mesh], Stage],
    evaluators: Sequence[Evaluator] = (),
    judge: Judge | None = None,
    profile: tuple[int, int] | None = None,
) -> TrainState:
    """Trains `run` in `workdir` up to `run.loop.steps`, from its newest checkpoint if it has one.

    Args:
        run: what is trained.
        workdir: where it leaves everything.
        make_stage: makes the stage of `run` for the devices of a mesh, and writes the frozen parts
            of a new run into `workdir`; called once this run alone is at work there.
        evaluators: what is measured beside the stage's own scores.
        judge: what is measured of drawings.
        profile: the first step that is profiled, and how many are.

    Raises:
        Interrupted: after SIGTERM or SIGINT or `run.loop.max_hours`, once the state is saved.
        NonFiniteLoss: names the step and the terms.
        cfg.ConfigError, ValueError: settings that do not fit the devices, the work directory
            or the first stage.
    """
    mesh = make_mesh(run.mesh)
    check_batch(mesh, run.data.batch_size, run.optim.accumulation)
    with _alone(workdir):
        check_workdir(workdir, run)
        _tell(_devices_note(mesh, run.data.batch_size))
        stage = make_stage(mesh)
        _tell(f"data: {stage.train.found}")
        if jax.process_index() == 0:
            if stage.note is not None:
                say(stage.note())
            write_config(workdir, run)
        with (
            jax.set_mesh(mesh),
            Checkpoints(workdir, run.loop.keep, judge and judge.criterion) as checkpoints,
            MetricWriter(workdir) as writer,
            signals.ask_first() as stop,
            contextlib.closing(stopping(stop, run.loop.max_hours)) as stops,
            Profile(workdir, profile) as profiled,
        ):
            own = means("validation", run.loop.validate_every, stage.scores)
            measured = (own, *evaluators)
            training = _Training(
                run, stage, measured, judge, mesh, checkpoints, writer, stops, profiled
            )
            return training.run_all()


@contextlib.contextmanager
def _alone(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of `workdir`; process 0 does it for all processes of this one, and may
    have to look for a minute whether the run of a lock is alive."""
    with locked(workdir) if jax.process_index() == 0 else contextlib.nullcontext():
        wait_for_all("the lock")
        yield


def _devices_note(mesh: jax.sharding.Mesh, batch_size: int) -> str:
    """What a run of several devices computes on, in a line; "" of one."""
    if mesh.size == 1:
        return ""
    kinds = " and ".join(sorted({device.device_kind for device in mesh.devices.flat}))
    sizes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    several = f"{jax.process_count()} processes, " if jax.process_count() > 1 else ""
    return (
        f"{several}{mesh.size} devices ({kinds}) as {sizes}; a batch of {batch_size}, "
        f"{batch_size // parts} on each"
    )


def _tell(text: str) -> None:
    """Says it once for all processes."""
    if text and jax.process_index() == 0:
        say(text)


@contextlib.contextmanager
def _begun() -> Iterator[None]:
    """What goes wrong once training has begun is no longer a refusal."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise Failed(f"not enough memory; {SMALLER}. --debug shows where") from error
        if isinstance(error, ValueError | OSError):
            raise Failed(str(error)) from error
        raise


class _Training:
    """The moving parts of one call of `fit`."""

    def __init__(
        self,
        run: cfg.Run,
        stage: Stage,
        evaluators: Sequence[Evaluator],
        judge: Judge | None,
        mesh: jax.sharding.Mesh,
        checkpoints: Checkpoints,
        writer: MetricWriter,
        stops: Stopping,
        profile: Profile,
    ) -> None:
        """Decides where everything lives and makes the validation data."""
        self.run, self.stage, self.judge, self.mesh = run, stage, judge, mesh
        self.checkpoints, self.writer = checkpoints, writer
        self.stops, self.profile = stops, profile
        self.unread: list[tuple[int, Any]] = []
        self.steps: dict[tuple[tuple[int, ...], ...], Any] = {}
        self.flops_of: dict[Any, int] = {}
        self.data_wait = self.logged_seconds = self.model_flops = 0.0
        everywhere = replicated(mesh)
        abstract = jax.eval_shape(stage.init, stage.initial)
        self.shardings = state_sharding(mesh, abstract)
        self.abstract = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            abstract,
            self.shardings,
        )
        self.formats = free_layouts(self.shardings, mesh)
        self.frozen_shardings = state_sharding(mesh, stage.frozen)
        self.frozen = jax.device_put(stage.frozen, self.frozen_shardings)
        self.rows = local_rows(mesh, run.data.batch_size)
        self.validation = []
        if stage.validation is not None:
            self.validation = validation_batches(
                stage.validation, run.data, run.loop.validation_batches, stage.inputs,
                rows=self.rows,
            )  # fmt: skip
        self.evaluators = [(one, jax.jit(one.sums, out_shardings=everywhere)) for one in evaluators]
        draws = {one.draw for one in stage.shown}
        self.draws = {draw: jax.jit(draw, out_shardings=everywhere) for draw in draws}
        self.rate = learning_rate(run.optim, run.loop.steps)
        self.done_once: set[str] = set()
        self.progress: Progress | None = None

    def run_all(self) -> TrainState:
        """From the newest checkpoint, or from the start, to the last step."""
        state, loader = self._start()
        first, loop = int(state.step), self.run.loop
        if first >= loop.steps:
            say(f"already trained for {first} steps; nothing to do")
            return state
        if first:
            say(f"going on from step {first}")
            before = self.checkpoints.run_of(first).loop.steps
            _tell(schedule_note(self.run.optim, before, loop.steps, first))
        held_out = self.stage.validation
        _tell(self.writer.held_out(() if held_out is None else held_out.names()))
        _tell(parameters_note(self.abstract, self.stage.frozen))
        _tell(self.writer.places(bool(self.stage.shown)))
        self.times = TimeBudget()
        progress = Progress("training", loop.steps, first, self.run.data.batch_size)
        with _begun(), progress as self.progress:
            for step in range(first + 1, loop.steps + 1):
                self.checkpoints.check()
                waiting = time.perf_counter()
                batch = to_global(self.mesh, next(loader))
                self.data_wait += time.perf_counter() - waiting
                program, state = self._step(state, batch)
                self.profile.before(step)
                state, metrics = program(state, self.frozen, batch)
                self.profile.after(step, metrics)
                self.unread.append((step, metrics))
                self.model_flops += self.flops_of[program]
                why = self.stops.after(step)
                self._after(step, state, loader, why is not None)
                if why is not None and step < loop.steps:
                    self.checkpoints.wait()
                    raise Interrupted(
                        f"{why} and saved at step {step} of {loop.steps}; the same command goes on "
                        "from there"
                    )
        self.checkpoints.wait()
        _tell(self._summary(loop.steps - first))
        self.times.end()
        name = self.checkpoints.criterion.name.replace("_", " ")
        _tell(_best_note(name, self.checkpoints.best_step(), self.checkpoints.values()))
        return state

    def _start(self) -> tuple[TrainState, Any]:
        """State and loader at the newest checkpoint, or at the beginning."""
        run = self.run
        loader = make_loader(
            self.stage.train, run.data, seed=run.loop.seed, train=True, rows=self.rows,
            inputs=self.stage.inputs,
        )  # fmt: skip
        latest = self.checkpoints.latest_step()
        if latest is None:
            init = jax.jit(self.stage.init, out_shardings=self.shardings)
            return init(self.stage.initial), loader
        state, position = self.checkpoints.restore(self.abstract, latest)
        loader.set_state(position)
        self.writer.rewind(latest)
        return state, loader

    def _step(self, state: TrainState, batch: Any) -> tuple[Any, TrainState]:
        """The training step compiled for the shapes of `batch`, and the state, laid in memory as
        the first one wants it; it takes the state's memory for the new state."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self.steps:
            chosen = not self.steps and self.formats is not self.shardings
            self.steps[shapes] = self._compile(batch, chosen)
            if chosen:
                lay_out = jax.jit(lambda x: x, out_shardings=self.formats, donate_argnums=0)
                state = lay_out(state)
        return self.steps[shapes], state

    def _compile(self, batch: Any, chosen: bool) -> Any:
        """`chosen`: by its compiler is how the state lies in memory, as it then does for all."""
        began = time.perf_counter()
        platform = self.mesh.devices.flat[0].platform
        options = compiler_options(self.run.loop.deterministic, platform)

        def compiled() -> Any:
            step = jax.jit(
                self.stage.step,
                in_shardings=(
                    self.formats, self.frozen_shardings,
                    jax.tree.map(lambda _: batch_sharding(self.mesh), batch),
                ),
                out_shardings=(self.formats, replicated(self.mesh)),
                donate_argnums=0,
            )  # fmt: skip
            traced = step.trace(self.abstract, self.frozen, batch)
            program = traced.lower().compile(options)
            self.flops_of[program] = flops.count(traced.jaxpr.jaxpr, again=False)
            return program

        with self.progress.paused(), self.times.spending("compile"):
            size = batch.get("image", batch.get("encoded")).shape[1:3]
            several = f" for {size[0]} x {size[1]}" if buckets_of(self.stage.train) else ""
            _tell(f"compiling the training step{several} …")
            program = compiled()
            if chosen:
                self.formats = program.input_formats[0][0]
                if program.output_formats[0] != self.formats:
                    program = compiled()
            _tell(f"compiled in {time.perf_counter() - began:.3g} s")
            _tell(memory_note(program, self.mesh.local_devices))
            wait_for_all("the training step")  # longer than devices wait for each other's first
        return program

    @contextlib.contextmanager
    def _aside(self, what: str) -> Iterator[None]:
        """What is no training and does not count in its speed; its first time is told of."""
        with self.progress.paused(), self.times.spending("validation"):
            first, began = what not in self.done_once, time.perf_counter()
            if first:
                _tell(f"the first {what}, which has to be compiled …")
            yield
            if first:
                _tell(f"took {time.perf_counter() - began:.3g} s")
            self.done_once.add(what)

    def _after(self, step: int, state: TrainState, loader: Any, stopping: bool) -> None:
        """What is due after `step`: metrics, validation, pictures, a checkpoint."""
        loop = self.run.loop
        last = step == loop.steps

        def due(every: int) -> bool:
            return every > 0 and (last or step % every == 0)

        saving = stopping or due(loop.checkpoint_every)
        measuring = [one for one in self.evaluators if due(one[0].every)]
        judging = self.judge is not None and due(self.judge.every)
        if saving or measuring or judging or due(loop.log_every) or due(loop.sample_every):
            self._log()
        scores: dict[str, float] = {}
        if self.validation and measuring:
            scores |= self._scores(state, measuring)
        if judging:
            with self._aside("scoring of drawings"):
                scores |= self.judge.measure(
                    step, self.stage, self.mesh, state.eval_params, self.frozen
                )
        if scores:
            self.writer.scalars(step, scores)
        if self.stage.shown and due(loop.sample_every):
            self._pictures(step, state)
        if scores or saving:
            with self.progress.paused(), self.times.spending("validation"):
                self.writer.curves()
        if saving:
            with self.times.spending("checkpoints"):
                self.checkpoints.save(step, state, loader.get_state(), self.run, scores)

    def _log(self) -> None:
        """Reads the metrics of the steps since the last log, and refuses what is not finite."""
        if not self.unread:
            return
        waiting = time.perf_counter()
        values = jax.device_get(self.unread)
        # What the devices still had to do when all data was there they did meanwhile.
        idle = max(0.0, self.data_wait - (time.perf_counter() - waiting))
        self.times.add("data", idle)
        self.unread = []
        for step, metrics in values:
            broken = {k: float(v) for k, v in metrics.items() if not math.isfinite(v)}
            if broken:
                latest = self.checkpoints.latest_step()
                left = "there is no checkpoint yet"
                if latest is not None:
                    left = f"the last good checkpoint is step {latest}"
                raise NonFiniteLoss(
                    f"step {step}: not finite: {broken} (all terms: "
                    f"{ {k: float(v) for k, v in metrics.items()} }); {left}. Try a lower "
                    "optim.learning_rate, a longer optim.warmup_steps or loop.dtype=float32"
                )
        now = self.progress.seconds()
        seconds, self.logged_seconds = max(now - self.logged_seconds, 1e-9), now
        step, metrics = values[-1]
        scalars = {k: float(v) for k, v in metrics.items()} | {
            "learning_rate": self._learning_rate(step),
            "data_wait_seconds": self.data_wait,
            "broken_images": float(len(self.stage.train.broken)),
        }
        scalars |= speed(
            len(values), self.run.data.batch_size, seconds, self.model_flops / len(values),
            self.mesh.size,
        )  # fmt: skip
        scalars |= memory_in_use() | slowest_process(self.data_wait) | self.times.record()
        self.model_flops = 0.0
        self.writer.scalars(step, scalars)
        self.progress.update(len(values), loss=scalars["loss"])
        self.data_wait = 0.0

    def _summary(self, steps: int) -> str:
        """What this process has done, in a line."""
        record, batch = self.times.record(), self.run.data.batch_size
        hours = record["time/all"] / 3600
        rate = steps * batch / max(self.progress.seconds(), 1e-9)
        return (
            f"{steps:,} steps, {steps * batch:,} images in {hours:.2g} hours, {rate:.3g} images/s "
            f"while training; {told_times(record)}"
        )

    def _learning_rate(self, step: int) -> float:
        """What `step` was done with; the optimiser counts the steps before it."""
        with jax.numpy_dtype_promotion("standard"):
            return float(self.rate(step - 1))

    def _scores(self, state: TrainState, measuring: list[tuple[Evaluator, Any]]) -> dict:
        """The results of evaluators, from all validation batches, under their names."""
        results: dict[str, float] = {}
        with self._aside("validation"):
            for evaluator, sums in measuring:
                totals = None
                for batch in self.validation:
                    batch = to_global(self.mesh, batch)
                    measured = sums(state.eval_params, self.frozen, batch)
                    totals = added(totals, jax.device_get(measured))
                found = evaluator.results(totals)
                results |= {f"{evaluator.name}_{name}": value for name, value in found.items()}
        return results

    def _pictures(self, step: int, state: TrainState) -> None:
        """Draws what the stage shows, with the parameters that are evaluated."""
        with self._aside("drawing of pictures"):
            for one in self.stage.shown:
                batch = jax.device_put(dict(one.batch), replicated(self.mesh))
                drawn = jax.device_get(self.draws[one.draw](state.eval_params, self.frozen, batch))
                self.writer.image(step, one.name, sheet(drawn, one.labels))


def _best_note(name: str, best: int | None, values: Mapping[int, float]) -> str:
    """What decides which checkpoint is best, of the best and of the last one, in words; "" where
    none has it."""
    if best is None:
        return ""
    last = max(values)
    words = {s: number(float(f"{x:.4g}")) for s, x in values.items() if math.isfinite(x)}
    told = f"best {name} {words[best]} at step {best}"
    if best == last:
        return f"{told}, the last"
    kept = f"{told} (kept in checkpoints/{best})"
    return kept + (f"; of the last checkpoint {words[last]}" if last in words else "")
