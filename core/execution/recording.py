"""Recording: carries one run out on the worker thread, from the prepared model to the last row in the session file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from core.analysis.stopping import enough
from core.clock.gate import Gate
from core.config import RunConfig
from core.errors import Cancelled
from core.execution import time_left
from core.execution.failure import NO_REACTION, what_failed
from core.execution.instrumentation import Instrumentation, sampled, watch
from core.execution.model_slot import PreparedModel
from core.execution.moments import ALWAYS, NEVER, SETTLING_MOMENTS, Moments
from core.execution.quality import cost_of
from core.execution.requests import Requests
from core.execution.run_facts import cold_start_ns, default_name, first_facts, merged, phase_peaks, resident_peak
from core.execution.tasks.base import TaskAdapter, form_of
from core.execution.tasks.chat import settled as settled_config
from core.execution.warm_up import AS_ASKED, WarmedUp, WarmUp
from core.execution.workload import beyond_context
from core.messages.reason import Reason, as_reason
from core.models.base import generates
from core.models.stages import layers_of
from core.pass_api.subject import Subject
from core.passes.compiling import compile_ns
from core.planning import kernels, plan
from core.progress import Progress
from core.records.run import Group, Run, Unavailable
from core.surroundings import Changes, kept
from core.targets.base import Target, TargetFacts
from profilers.cancel_patch import CancelPatch
from profilers.host_memory import PeakMemory
from profilers.sampler import Sampler
from profilers.trace import Recorder, Tag

FEW_STEPS = 8
"""Requests of fewer tokens have no room inside for pauses, which then come between them."""

MEASURING_QUALITY = Reason("execution.measuring-quality")

NOT_FINITE = Reason("execution.not-finite")

PROFILED_TOKENS = 4
"""Tokens of the request under the operator profiler: a prefill and three decodes tell what a hundred would."""


@dataclass(frozen=True)
class TakingTurns:
    """For sides of an A/B test: ``yield_turn`` is called before each moment, with the clock stopped; ``left_out`` are
    instruments that cannot tell the sides apart, with the reason.
    """

    yield_turn: Callable[[], None] | None = None
    left_out: Mapping[str, Reason] = field(default_factory=dict)


@dataclass
class _Stage:
    """A model on which this run's requests are made at present."""

    prepared: PreparedModel
    moments: Moments
    requests: Requests
    tripwire: CancelPatch
    watch: Instrumentation
    form: TaskAdapter


class Recording:
    """One run under way. ``run()`` and ``cancel()`` are for any thread; everything else for the worker.

    Args:
        config: what was asked.
        prepared: the model with its passes.
        target: where it runs, and what probing it told.
        gate: who may come in between two moments.
        progress: carries the user's wish to cancel.
        taking_turns: what is different for a side of an A/B test.

    ``number`` is the run's id in its session, given once the session file has it; ``label`` tells sides of an A/B test apart.
    ``group`` and ``role`` are as in ``Run``.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: PreparedModel,
        target: tuple[Target, TargetFacts],
        gate: Gate,
        progress: Progress,
        taking_turns: TakingTurns | None = None,
    ) -> None:
        self.config = settled_config(config, prepared.loaded)
        self.recorder = Recorder()
        self.number = 0
        self.label = ""
        self.group: Group | None = None
        self.role = 0
        self.warming = WarmUp(self.recorder, config.workload.warmup)
        self._target, target_facts = target
        self._gate = gate
        self._progress = progress
        self._turns = taking_turns or TakingTurns()
        self._created = datetime.now(UTC).isoformat(timespec="seconds")
        self._fresh = prepared.fresh
        self._stage: _Stage | None = None
        self._stage_lock = threading.Lock()
        self._steps = config.workload.new_tokens if generates(prepared.subject.task) else 1
        self._measured: list[float] = []  # E2E of each measured request, ns
        self._measured_ns = 0
        self._look_wanted = False
        self._looking_at = Reason("execution.naming-kernels")
        self._measured_peak_bytes: int | None = None
        self._measured_device_bytes: int | None = None
        longer = beyond_context(prepared.loaded.facts, prepared.subject.max_length)
        self.facts = first_facts(self.config, prepared, target_facts, self._steps)
        self._note(*([longer] if longer else []))
        chosen, missing = sampled([name for name in config.profilers if name not in self._turns.left_out])
        missing += [Unavailable(name, why) for name, why in self._turns.left_out.items() if name in config.profilers]
        self._sampler = Sampler(self.recorder, chosen, self._trouble)
        self._peak = PeakMemory()
        self.facts = replace(self.facts, unavailable=tuple(missing))

    # -- any thread -------------------------------------------------------------------------------------------------------

    def run(self) -> Run:
        """The run as it stands, with a fresh snapshot of its columns."""
        name = (self.config.name or default_name(self.config, self.facts)) + self.label
        trace = self.recorder.snapshot()
        return Run(self.number, name, self._created, self.config, self.facts, trace, group=self.group, role=self.role)

    def cancel(self) -> None:
        """Stop within about one layer's time. The progress must have been cancelled before."""
        with self._stage_lock:
            if self._stage is not None:
                self._stage.tripwire.pull()

    @property
    def measured_requests(self) -> int:
        """How many requests that count have been made."""
        return len(self._measured)

    @property
    def measured_s(self) -> float:
        """Their latencies together, in seconds."""
        return self._measured_ns / 1e9

    @property
    def request_s(self) -> float | None:
        """Seconds that one request takes, with all that is between two; None while nobody knows."""
        return time_left.request_s(self.recorder, self._steps)

    @property
    def requests_left(self) -> int:
        """How many requests that count are still to come, the one under way among them; at most so many where that is open."""
        return time_left.requests_left(self.config.workload.repeats, self.measured_requests, self.measured_s, self.request_s)

    @property
    def measures_quality(self) -> bool:
        """Whether measuring quality follows."""
        return bool(self.config.passes) and self.config.quality is not None

    @property
    def on_stage(self) -> bool:
        """Whether requests can be made at present."""
        return self._stage is not None

    @property
    def looking_at(self) -> tuple[Reason, float | None]:
        """What is done after the measured requests, and how much of it is."""
        return self._looking_at, self._progress.fraction if self._looking_at == MEASURING_QUALITY else None

    @property
    def compiling(self) -> bool:
        """Whether the moment under way is the first of a graph, which is compiled in it."""
        stage = self._stage
        return stage is not None and stage.moments.compiling

    # -- worker -----------------------------------------------------------------------------------------------------------

    def carry_out(self, prepared: PreparedModel) -> None:
        """Run the workload to its end; afterwards ``facts.status`` says how it ended. Failures are raised after that."""
        self.begin()
        status, error, changes = "failed", None, Changes()
        try:
            with kept() as changes, self.on(prepared):
                self.warm_up()
                self.measure()
                self.profile_operators()
            status = "finished"
        except Cancelled:
            status = "cancelled"
        except BaseException as failure:
            error = what_failed(failure)
            raise
        finally:
            self._note(*changes.sentences(prepared.loaded.facts.name))
            self.finish(status, error)

    def begin(self) -> None:
        """From here on the sampler runs."""
        self._peak.reset()
        self._target.reset_peak()
        self._sampler.start()

    def rest(self, resting: bool) -> None:
        """Another side of the A/B test has its turn (or this one again): what is sampled meanwhile is not about this run."""
        self._sampler.resting = resting

    def finish(self, status: str, error: Reason | None = None) -> None:
        """The run is over: end the sampler and complete the facts."""
        self._sampler.stop()
        if status == "cancelled":
            self.recorder.instant("run", "cancelled")
        self._complete(status, error)

    def give_up(self) -> None:
        """As ``finish``, from another thread, while the worker hangs in something that does not react to a cancel."""
        self.finish("cancelled", NO_REACTION)

    @contextmanager
    def on(self, prepared: PreparedModel) -> Iterator[None]:
        """While it lasts requests are made of this model (the run's, or the same loaded anew)."""
        subject, workload = prepared.subject, self.config.workload
        layers = layers_of(subject.model)
        self.recorder.set_layers(layers)
        form = form_of(prepared.loaded, workload, self._target.device)
        frames = form.frames(subject)
        seen = watch(self.config.profilers, subject, layers, self._target, [frame.module for frame in frames])
        tripwire = CancelPatch(subject.model, Cancelled)
        requests = Requests(form, subject, workload.new_tokens, self.recorder)
        moments = Moments(
            subject,
            self.recorder,
            self._gate,
            self._progress,
            tripwire,
            seen,
            lambda: compile_ns() or 0,
            requests.read_text,
            frames=frames,
            yield_turn=self._turns.yield_turn,
            pause_steps=range(1, self._steps - SETTLING_MOMENTS + 1) if self._steps >= FEW_STEPS else None,
        )
        try:
            with moments:
                with self._stage_lock:
                    self._stage = _Stage(prepared, moments, requests, tripwire, seen, form)
                yield
            if self._look_wanted:  # out of the frame: these are no moments
                self._name_kernels(subject, form)
                self._measure_quality(prepared)
        except BaseException as failure:
            what_failed(failure, subject.model)  # while the model is at hand: the sentence stays on the error
            raise
        finally:
            with self._stage_lock:
                self._stage = None
            tripwire.clear()
            seen.close()
            if requests.not_finite:
                self._note(NOT_FINITE)
            known = {**self.facts.instruments, **seen.facts()}
            compiled_ns = (self.facts.compile_ns or 0) + moments.compiled_ns
            reports = plan.with_notes(self.facts.passes, subject.afterwards)
            self.facts = replace(self.facts, instruments=known, compile_ns=compiled_ns or None, passes=reports)
            untickable, runtime = subject.execution.untickable, subject.execution.runtime
            if untickable and (seen.clock is not None or runtime is not None):
                self._trouble("layers" if runtime is not None else "layers of compiled moments", untickable)
            for missing in seen.unavailable:
                self._trouble(missing.what, missing.why)

    def warm_up(self) -> None:
        """Requests that do not count: as many as were asked for, or until they get no faster, for ten seconds at most."""
        why = self.warming.why_over()
        self._progress.also = self.warming.check
        try:
            while why is None:
                with suppress(WarmedUp):
                    self.request(Tag.WARMUP)
                why = self.warming.why_over()
        finally:
            self._progress.also = None
        self.facts = replace(self.facts, warmup_done=why)
        self._plan(self.requests_left)

    def measure(self) -> None:
        """Requests that count: as many as were asked for, or until their latency is known well enough."""
        asked = self.config.workload.repeats
        why: Reason | None = None
        while why is None:
            self.measured_request()
            if asked is None:
                why = enough(self._measured, self.measured_s)
                self._plan(self.requests_left if why is None else 0)
            elif len(self._measured) >= asked:
                why = AS_ASKED
        self.facts = replace(self.facts, stopped=why)

    def measured_request(self, *, traced: bool | None = None) -> None:
        """One request that counts. ``traced``: all of its moments or none (None: they take turns)."""
        latency = self.request(Tag(0), None if traced is None else ALWAYS if traced else NEVER)
        self._measured.append(latency or 0.0)
        self._measured_ns += int(latency or 0)

    def request(self, tags: Tag, turns: tuple[bool, ...] | None = None, new_tokens: int | None = None) -> int | None:
        """One request; returns its latency in ns. The run's very first one is tagged cold as well."""
        stage = self._stage
        assert stage is not None
        if self.recorder.requests.count == 0:
            tags |= Tag.COLD
        with self._progress.interruptible:
            return stage.requests.make(stage.moments, tags, turns, new_tokens)

    def profile_operators(self) -> None:
        """Name operators and kernels; after all measured requests, because the profiler's first use slows what follows."""
        stage = self._stage
        assert stage is not None
        # the memory of the profiler and of measuring quality is not the run's
        self._measured_peak_bytes, self._measured_device_bytes = self._peak_bytes(), self._target.peak_bytes()
        if stage.watch.kernels is not None:
            self.request(Tag.PROFILED, None, PROFILED_TOKENS)
        self._look_wanted = bool(self.config.passes)

    def _name_kernels(self, subject: Subject, form: TaskAdapter) -> None:
        inputs = form.inputs()
        runtime = subject.execution.runtime
        if runtime is not None and runtime.census is not None:
            self.facts = replace(self.facts, passes=plan.credited(self.facts.passes, runtime.census(), subject.changed_by))
            return
        with kernels.as_run(subject), self._progress.interruptible:
            ran = kernels.kernels_by_layer(subject, lambda: form.probe(subject, inputs))
        self.facts = replace(self.facts, passes=plan.credited(self.facts.passes, ran, subject.changed_by))

    def _measure_quality(self, prepared: PreparedModel) -> None:
        """What the passes cost. Whatever goes wrong here, also a cancel, what was measured stands."""
        if prepared.standard is None:
            return
        self._looking_at = MEASURING_QUALITY
        self.rest(resting=True)
        lossless = all(plan.get(choice.id).lossless for choice in self.config.passes)
        with self._progress.interruptible:
            quality, why = cost_of(prepared, self._target.device, self._progress, lossless=lossless)
        self.facts = replace(self.facts, quality=quality)
        if why is not None:
            self._trouble("quality", why)

    def _plan(self, left: int) -> None:
        """How many moments there will be in all, where so many requests are left."""
        self.facts = replace(self.facts, planned_moments=self.recorder.moments.count + left * self._steps)

    def _note(self, *sentences: Reason) -> None:
        """Something special about how the model ran."""
        if self.facts.model is not None and sentences:
            self.facts = replace(self.facts, model=replace(self.facts.model, notes=(*self.facts.model.notes, *sentences)))

    def _trouble(self, what: str, why: Reason | str) -> None:
        """``why`` is words where an instrument or a pass says it."""
        missing = Unavailable(what, as_reason(why))
        if missing not in self.facts.unavailable:
            self.facts = replace(self.facts, unavailable=(*self.facts.unavailable, missing))

    def _complete(self, status: str, error: Reason | None) -> None:
        trace = self.recorder.snapshot()
        peak = self._measured_peak_bytes or self._peak_bytes()
        known = merged(self.facts.instruments, self._sampler.facts)
        for name in self.config.profilers:
            for what, why in known.get(name, {}).get("missing", {}).items():
                self._trouble(what, why)
        if "layer_clock" not in self.config.profilers:
            self._trouble("layers", Reason("execution.layer-clock-off"))
        if self.measures_quality:
            self._say_about_quality()
        self.facts = replace(
            self.facts,
            status=status,
            error=error,
            rss_peak_bytes=peak,
            device_peak_bytes=self._measured_device_bytes or self._target.peak_bytes(),
            paused_ns=int(trace.moments["paused_ns"].sum()),
            cold_start_ns=cold_start_ns(self.facts, trace.moments) if self._fresh else None,
            instruments=known,
            phase_peak_bytes=phase_peaks(trace.moments),
            competitors=tuple(known.get("noise", {}).get("competitors", ())),
        )

    def _say_about_quality(self) -> None:
        if not self._fresh:
            self._trouble("cold start", Reason("execution.used-before"))
        if self.facts.quality is None and all(item.what != "quality" for item in self.facts.unavailable):
            self._trouble("quality", Reason("execution.ended-before-quality"))

    def _peak_bytes(self) -> int | None:
        return resident_peak(self.recorder.snapshot(), self._peak)
