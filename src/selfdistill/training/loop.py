"""fit: the one training loop. It names no method.

What a step does depends on nothing but the weights and optimizer state, the seed and the step's number: the order of
the images and their augmentation come from (seed, epoch, image), and the global generators are seeded anew for every
micro-batch. So a checkpoint needs no generator state, and a run resumed in the middle of an epoch goes on bit for bit.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace

import torch

from ..data import BatchSampler, find_sampler, train_loader
from ..distributed import deal_rows, sum_over_processes
from ..runs.folder import Run
from ..runs.records import EndRecord, EpochRecord, GradientRecord, Parameters, ScheduleRecord
from ..task import Batch, Step
from ..tasks import complete_recipe, rate_scores
from .batch_norm import BatchNormSizes, describe_few_values
from .callbacks import Callback
from .checkpoint import load_state, lock_run, refuse_other_recipe
from .compile import create_compiler, find_usual_batches
from .cost import SlowdownMeter
from .device import AUTOCAST, create_accelerator, prepare
from .evaluation import StudentScoring, blame_precision, refuse_broken_student
from .experiment import Experiment
from .freezing import Freezing
from .log import RunLog, create_writers
from .memory import keep_freed_memory
from .meters import Means
from .optim import Schedule, clip_gradients, count_steps, create_ema, create_optimizer
from .phases import compute_progress, plan_phases
from .profile import count_method_parameters, read_peak_memory, reset_peak_memory
from .seeds import seed_generators
from .sharing import LabelDensity, mix_whole_batch, weigh_by_labels, weigh_terms
from .signals import Interrupted, catch_stop_signals
from .state import Result, TrainState
from .timer import StepTimer, StepWatch, none_if_nan

LOG_STEPS = 50  # optimizer steps between two records of the losses, at most
COLLECT_STEPS = 10  # optimizer steps after which several processes share sums and signals, for which they wait


def fit(
    experiment: Experiment, run: Run | None = None, *, resume: bool = False, callbacks: Sequence[Callback] = ()
) -> Result:
    """Trains the experiment's method in place, as its recipe says.

    Args:
        experiment: what to train; from `build`, or made of your own objects.
        run: the run folder for metrics, checkpoints and the student; None writes nothing.
        resume: go on from the run's last checkpoint, or the one before it if that is damaged.
        callbacks: told what happens, after those that write the run folder.

    Returns:
        The scores of the student after the last step, and what training cost.

    Raises:
        ValueError: settings contradict each other, another process writes the run folder, or the network's values
            became NaN or infinite.
        Interrupted: after SIGINT or SIGTERM, once the checkpoint is written.
    """
    if run is not None and experiment.card is None:
        raise ValueError("a run folder rebuilds its student from experiment.card; give one, or fit without a run")
    if resume and run is None:
        raise ValueError("resume=True goes on from the checkpoint of a run folder; give it as run=")
    with lock_run(run):
        trainer = Trainer(experiment, run, callbacks)
        try:
            if resume:
                trainer.resume()
            return trainer.train()
        except Exception as error:
            precision = AUTOCAST[trainer.accelerator.mixed_precision]
            task, student = experiment.method.task, experiment.method.student
            if blamed := blame_precision(error, student, task.image_shape, precision=precision):
                raise blamed from error
            raise
        finally:
            trainer.close()


class Trainer:
    """One `fit`, from the top of the file to its end: build, train, epoch, step, close."""

    def __init__(self, experiment: Experiment, run: Run | None = None, callbacks: Sequence[Callback] = ()) -> None:
        experiment = replace(experiment, recipe=complete_recipe(experiment.recipe))
        recipe, method = experiment.recipe, experiment.method
        self.experiment, self.recipe, self.run = experiment, recipe, run
        self.accelerator = create_accelerator(recipe, has_phases=method.has_phases)
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.plan = BatchSampler(
            len(experiment.train_set),
            recipe.batch_size,
            seed=recipe.seed,
            drop_last=recipe.data.drop_last,
            accumulate=recipe.optim.accumulate,
            rank=self.rank,
            world=self.world,
            sampler=find_sampler(recipe.data.sampler),
            labels=experiment.train_set.dataset.labels,
            blocks=experiment.train_set.dataset.blocks,
        )
        steps, last_step = count_steps(recipe, self.plan.steps_per_epoch)
        restarts = recipe.optim.restarts
        self.schedule_steps = restarts[0][1] if restarts else steps  # of the first schedule, which is all of `progress`
        phases = plan_phases(method, self.schedule_steps, last_step)
        method.to(self.device)
        if recipe.machine.channels_last:
            method.to(memory_format=torch.channels_last)
        self.freezing = Freezing(method, recipe.student, self.schedule_steps)
        optimizer = create_optimizer(method, recipe.optim)
        self.schedule = Schedule(optimizer, recipe.optim, steps)
        ema = create_ema(method.student, recipe.optim)
        self.compiler = create_compiler(method, recipe, self.accelerator, steps=last_step)
        self.watch = StepWatch(self.device, workers=recipe.machine.workers)
        self.module, self.optimizer, self.give_back = prepare(self.accelerator, method, optimizer)
        self.state = TrainState(
            method=method,
            optimizer=self.optimizer,
            ema=ema,
            scaler=self.accelerator.scaler,
            device=self.device,
            steps_per_epoch=self.plan.steps_per_epoch,
            last_step=last_step,
            timer=StepTimer(self.watch.kind),
            phases=phases,
        )
        precision = AUTOCAST[self.accelerator.mixed_precision]
        self.scoring = StudentScoring(experiment, self.state, rank=self.rank, world=self.world, precision=precision)
        writers = create_writers(experiment, run if self.rank == 0 else None, self.accelerator)
        self.log = RunLog(self.state, [*writers, *callbacks])
        self.batch_norms = BatchNormSizes(method)
        # not where steps are compiled, or where a student that is run alone would wait for other processes
        is_comparable = self.compiler.mode is None and self.world == 1
        self.slowdown = SlowdownMeter(self.state, autocast=self.accelerator.autocast) if is_comparable else None

    def resume(self) -> None:
        """Goes on from the last checkpoint; the records that were written after it are dropped."""
        assert self.run is not None
        checkpoint, damage = self.run.load_whole_checkpoint()
        refuse_other_recipe(self.experiment, checkpoint, self.run)
        load_state(self.state, checkpoint)
        if self.rank == 0:
            self.log.warn("log", self.run.rewind(self.state.step, size=checkpoint.get("log_bytes")))
        self.log.warn("checkpoint", damage)
        if self.state.step not in self.schedule.starts:
            self.stop_without_progress()

    def train(self) -> Result:
        """Trains up to the last step."""
        state = self.state
        first_step = state.step
        reset_peak_memory(self.device)
        self.log.notify("on_start")
        if self.plan.num_dropped and not self.plan.drop_last and state.step == 0:
            few = f"; {self.world} processes need {2 * self.world} for a batch" if self.world > 1 else ""
            self.log.warn("dropped", self.plan.describe_dropped() + few)
        with catch_stop_signals() as signals:
            while state.step < state.last_step:
                self.start_schedule()
                self.train_epoch(signals)
                self.close_epoch()
        if state.step == first_step:  # it was stopped at its new end: the student on disk is of an earlier step
            self.score_student()
            self.log.notify("on_epoch_end")
        return self.finish()

    def start_schedule(self) -> None:
        """Logs that an added schedule begins, and has `patience` count anew."""
        state = self.state
        if state.step > 0 and state.step in self.schedule.starts:
            state.since_best = 0
            self.log.add(ScheduleRecord(epoch=state.epochs_begun, step=state.step, last_step=state.last_step))

    def train_epoch(self, signals: list[str]) -> None:
        """Trains what is left of the epoch, at most up to the last step."""
        state, machine = self.state, self.recipe.machine
        state.scores, state.thresholds, state.is_best = None, None, False
        if state.step_in_epoch == 0:
            state.meter.start_epoch()
        all_steps = self.plan.epoch(state.epoch)
        dealt = [self.plan.deal(size) for size in self.plan.batch_sizes]  # of every process
        sizes = [dealt_step[self.rank] for dealt_step in dealt]
        usual = find_usual_batches(sizes, first_epoch=state.epoch == 0)
        rest = slice(state.step_in_epoch, state.step_in_epoch + state.last_step - state.step)
        steps = all_steps[rest]
        batches = iter(
            train_loader(
                self.experiment.train_set,
                steps,
                workers=machine.workers,
                device=self.device,
                channels_last=machine.channels_last,
            )
        )
        for number, (step_sizes, step_usual) in enumerate(zip(dealt[rest], usual[rest], strict=True), 1):
            self.watch.start()
            compiled = self.train_step(batches, step_sizes, step_usual)
            if state.step == 1:
                few_values = describe_few_values(self.batch_norms.values, sizes[0][0], min(map(min, sizes)))
                self.log.warn("batch norm", few_values)
            self.log_step(compiled=compiled, ends_epoch=number == len(steps))
            if self.slowdown is not None:
                self.slowdown.after_step(step_sizes[self.rank])
            state.is_collected = self.world == 1 or state.step % COLLECT_STEPS == 0
            if state.is_collected and self.world > 1:
                state.meter.collect(sum_over_processes, keep=self.rank == 0)
            self.log.notify("on_step")
            if state.is_collected and state.step < state.last_step:
                self.stop_if_asked(signals)
        if state.step_in_epoch == state.steps_per_epoch:
            state.epoch, state.step_in_epoch = state.epoch + 1, 0

    def train_step(self, batches: Iterator[Batch], sizes: list[list[int]], usual: list[bool]) -> bool:
        """One optimizer step over micro-batches of these `sizes` in each process.

        The gradient is the mean over all images, or over all labels, of all processes. `usual` says which
        micro-batches run compiled, if any does. Gives whether one was compiled first. Nothing in here waits for the
        device.
        """
        state = self.state
        seeds = self.recipe.seed, state.step
        self.schedule.step_update(state.step)
        self.freezing.update(state.step)
        state.method.begin_step(compute_progress(state.step, self.schedule_steps))
        micro_batches = list(itertools.islice(batches, len(usual)))
        seed_generators(*seeds, 0, 0)
        if self.experiment.mix is not None:
            micro_batches = mix_whole_batch(self.experiment.mix, micro_batches, sizes, self.rank)
        densities = weigh_by_labels(micro_batches, sizes, state.method)
        images, compiled = sum(map(sum, sizes)), False
        for micro, (batch, density) in enumerate(zip(micro_batches, densities, strict=True)):
            if (micro, self.rank) != (0, 0):
                seed_generators(*seeds, micro, self.rank)
            is_last = micro == len(usual) - 1
            count_values = self.batch_norms if state.step == micro == 0 else nullcontext()  # which is never compiled
            with count_values, nullcontext() if is_last else self.accelerator.no_sync(self.module):
                share = sizes[self.rank][micro] * self.world / images  # gradients are averaged over processes
                with deal_rows([of_process[micro] for of_process in sizes]):
                    diagnose = micro == 0 and self.is_diagnosed()
                    step = self.train_micro_batch(batch, share, density, usual=usual[micro], diagnose=diagnose)
            compiled |= self.compiler.just_compiled
            state.meter.add(step, batch, state.method.task)
        self.freezing.drop_gradients()
        clip_gradients(self.accelerator, self.module, self.recipe.optim)
        self.optimizer.step()
        self.optimizer.zero_grad()
        state.step, state.step_in_epoch = state.step + 1, state.step_in_epoch + 1
        state.method.after_step()
        if state.ema is not None:
            state.ema.update(state.method.student, step=state.step)
        return compiled

    def is_diagnosed(self) -> bool:
        """Whether the gradients of the terms are measured in the next step, in its first micro-batch."""
        every = self.recipe.diagnose
        # In its first step in this process, torch's DistributedDataParallel takes any backward pass for the step's own.
        is_safe = self.world == 1 or not self.state.timer.is_first_step
        return every is not None and (self.state.step + 1) % every == 0 and is_safe

    def train_micro_batch(
        self, batch: Batch, share: float, density: LabelDensity, *, usual: bool, diagnose: bool
    ) -> Step:
        """Forward and backward on a micro-batch that is a `share` of its step, compiled if it is `usual`."""
        state = self.state
        done = compute_progress(state.step, self.schedule_steps)
        progress = torch.full((), done, device=self.device)  # torch.tensor would wait

        def work() -> Step:
            step = weigh_terms(self.module(batch, progress), density, state.method)
            if diagnose:
                scale = None if state.scaler is None else state.scaler.scale
                state.gradients.measure(step.losses, state.method.student, scale=scale)
            self.accelerator.backward(step.loss * share)
            return step

        step = self.compiler(work, usual=usual, mixed=batch.soft_target is not None, phase=state.method.phase)
        self.log.warn("compile", self.compiler.failure)
        return step

    def stop_if_asked(self, signals: list[str]) -> None:
        """Raises `Interrupted` after a signal to any process."""
        if bool(sum_over_processes(torch.full((), len(signals), device=self.device)) if self.world > 1 else signals):
            self.log.notify("on_interrupt")
            raise Interrupted(f"{(signals or ['another process'])[0]}: stopped after step {self.state.step}")

    def close_epoch(self) -> None:
        """Scores the student that would ship now, and lets the callbacks save it."""
        state = self.state
        self.score_student()
        if state.scores is not None:
            split = self.experiment.split
            self.log.add(EpochRecord(epoch=state.epochs_begun, step=state.step, split=split, scores=state.scores))
            rating = rate_scores(state.scores, self.recipe.best_by)
            is_better = state.best_score is None or rating > state.best_score
            state.is_best = split == "val" and is_better
            state.best_score = rating if state.is_best else state.best_score
            state.since_best = 0 if state.is_best else state.since_best + 1
            self.stop_without_progress()
        self.log.notify("on_epoch_end")

    def stop_without_progress(self) -> None:
        """Ends training here where the validation images were scored `patience` times without a better score."""
        state, patience = self.state, self.recipe.patience
        if patience is not None and state.since_best >= patience and state.step < state.last_step:
            state.last_step = state.step
            self.log.warn(
                "patience",
                f"training ends after epoch {state.epochs_begun}, as the last {state.since_best} scorings of the "
                f"validation images were no better than one before; this epoch is reported, and `best` holds that one",
            )

    def score_student(self) -> None:
        """Scores the student that ships, in the epochs that are scored; raises `ValueError` if it is broken."""
        state = self.state
        if state.step == state.last_step or state.epochs_begun % self.recipe.evaluate_every == 0:
            state.scores, state.thresholds = self.scoring.score_held_out()
        refuse_broken_student(state, self.recipe.optim.lr)

    def log_step(self, *, compiled: bool, ends_epoch: bool) -> None:
        """Takes the time of the step that was just done, and logs what is due."""
        state = self.state
        line_is_full = len(state.timer.steps) + 1 >= LOG_STEPS or ends_epoch or state.step == state.phase_end
        means = state.meter.flush(sum_over_processes) if line_is_full else None  # this waits for the device
        pulls = state.gradients.take()
        state.timer.add(*self.watch.stop(), compiled=compiled, slow=pulls is not None)
        if pulls is not None:
            self.log.add(GradientRecord(epoch=state.epoch + 1, step=state.step, **pulls._asdict()))
        if means is not None:
            self.log_means(means)

    def log_means(self, means: Means) -> None:
        """Logs the means since the last line; raises `ValueError` where they come from a broken network."""
        in_warmup = (self.state.step - 1) / self.schedule_steps < self.state.method.warmup  # as the last step saw it
        self.log.add_means(means, lr=self.optimizer.param_groups[0]["lr"], in_warmup=in_warmup)
        if not all(math.isfinite(value) for value in means.losses.values()):
            refuse_broken_student(self.state, self.recipe.optim.lr)

    def finish(self) -> Result:
        """The result, after it was logged."""
        state = self.state
        peak_memory = read_peak_memory(self.device)  # before images are scored that training never saw
        final = self.scoring.finish()
        for split, collector in self.scoring.collectors.items():
            outcomes = collector.compute(self.device)
            if outcomes is not None and self.run is not None and self.rank == 0:
                self.run.save_outcomes(split, outcomes)
        result = Result(
            scores=state.scores,
            epoch=state.epochs_begun,
            step=state.step,
            seconds_per_step=state.timer.seconds_per_step,
            peak_memory_mib=peak_memory,
            compile_seconds=state.timer.compile_seconds,
            eval_seconds=none_if_nan(state.eval_seconds),
            **state.timer.describe(),
            **final._asdict(),
        )
        self.log.warn_at_end()
        parameters = Parameters(**count_method_parameters(state.method))
        self.log.add(EndRecord(split=self.experiment.split, parameters=parameters, **result._asdict()))
        return result

    def close(self) -> None:
        """Ends every callback, and gives the method back without accelerate's wrapper and uncompiled."""
        with ExitStack() as stack:  # each of these runs whatever the others raise, from the last to the first
            stack.callback(self.freezing.close)
            stack.callback(self.give_back)
            stack.callback(self.compiler.close)
            stack.callback(self.state.method.begin_step, None)
            for callback in self.log.callbacks:
                stack.callback(callback.on_end, self.state)
