"""Recording: carries one run out on the worker thread, from the prepared model to the last row in the session file."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

from core.config import RunConfig
from core.engine.failure import what_failed
from core.engine.gate import Gate
from core.engine.holder import Prepared
from core.engine.moments import SETTLING_MOMENTS, Moments
from core.engine.requests import Requests, probe
from core.engine.workload import Prompt
from core.errors import Cancelled
from core.models.stages import layers_of
from core.passes import kernels, plan
from core.passes.compile_decode import compile_events, compile_ns
from core.passes.weights import weight_bytes
from core.progress import Progress
from core.session.environment import environment
from core.session.run import Run, RunFacts, Unavailable
from core.targets.base import Target, TargetFacts
from profilers.base import Instrument, instruments
from profilers.host_memory import PeakMemory, resident_bytes
from profilers.layer_clock import LayerClock
from profilers.sampler import Sampler
from profilers.trace import Recorder
from profilers.tripwire import Tripwire

FEW_STEPS = 8
"""Requests of fewer tokens have no room inside for pauses, which then come between them."""


class Recording:
    """One run under way. ``run()`` is for any thread; everything else for the worker.

    Args:
        config: what was asked.
        prepared: the model with its passes.
        prompt: makes the inputs of each request.
        target: where it runs, and what probing it told.
        gate: who may come in between two moments.
        progress: carries the user's wish to cancel.

    ``number`` is the run's id in its session, given once the session file has it.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        prompt: Prompt,
        target: tuple[Target, TargetFacts],
        gate: Gate,
        progress: Progress,
    ) -> None:
        self.config = config
        self.recorder = Recorder()
        self.number = 0
        self._prepared = prepared
        self._target, target_facts = target
        self._gate = gate
        self._progress = progress
        self._created = datetime.now(UTC).isoformat(timespec="seconds")
        self._prompt = prompt
        self._tripwire: Tripwire | None = None
        self._tripwire_lock = threading.Lock()
        self._trouble: list[Unavailable] = []
        workload = config.workload
        steps = workload.new_tokens if prepared.subject.task == "text-generation" else 1
        self.facts = RunFacts(
            model=prepared.loaded.facts,
            target=target_facts,
            threads=prepared.subject.threads,
            passes=prepared.reports,
            environment=environment(),
            load_ns=prepared.loaded.load_ns,
            apply_ns=prepared.apply_ns,
            rss_before_bytes=prepared.loaded.rss_before_bytes,
            rss_loaded_bytes=resident_bytes(),
            weights_bytes=weight_bytes(prepared.subject.model),
            planned_moments=(workload.warmup + workload.repeats) * steps,
        )

    def run(self) -> Run:
        """The run as it stands, with a fresh snapshot of its columns."""
        name = self.config.name or default_name(self.config, self.facts)
        return Run(self.number, name, self._created, self.config, self.facts, self.recorder.snapshot())

    def cancel(self) -> None:
        """Stop within about one layer's time (any thread). The progress must have been cancelled before."""
        with self._tripwire_lock:
            if self._tripwire is not None:
                self._tripwire.pull()

    def carry_out(self) -> None:
        """Run the workload to its end; afterwards ``facts.status`` says how it ended. Failures are raised after that."""
        sampled = self._sampled()
        sampler = Sampler(self.recorder, sampled, lambda what, why: self._trouble.append(Unavailable(what, why)))
        peak = PeakMemory()
        peak.reset()
        self._target.reset_peak()
        compiled_before = compile_ns()
        sampler.start()
        status, error = "failed", None
        try:
            self._requests()
            if self.config.passes:
                self._name_kernels()
            status = "finished"
        except Cancelled:
            status = "cancelled"
            self.recorder.instant("run", "cancelled")
        except BaseException as failure:
            error = what_failed(failure, self._prepared.subject.model)
            raise
        finally:
            sampler.stop()
            self._finish(status, error, peak, compiled_before)

    def _requests(self) -> None:
        subject, workload = self._prepared.subject, self.config.workload
        self.recorder.set_layers(layers_of(subject.model))
        clock = LayerClock(subject.model) if "layer_clock" in self.config.profilers else None
        tripwire = Tripwire(subject.model, Cancelled)
        with self._tripwire_lock:
            self._tripwire = tripwire
        anywhere = subject.task != "text-generation" or workload.new_tokens < FEW_STEPS
        steps = None if anywhere else range(1, workload.new_tokens - SETTLING_MOMENTS + 1)
        requests = Requests(self._prepared.loaded, subject, workload, self._prompt, self.recorder)
        try:
            with Moments(
                subject,
                self.recorder,
                self._gate,
                self._progress,
                tripwire,
                clock,
                compile_events,
                requests.read_text,
                pause_steps=steps,
            ) as moments:
                requests.run(moments)
        finally:
            with self._tripwire_lock:
                self._tripwire = None
            tripwire.clear()

    def _name_kernels(self) -> None:
        """Which kernels the passes really led to; after all requests, because a profiler's first use slows what follows."""
        inputs = self._prompt.inputs()
        with kernels.as_run(self._prepared.subject):
            names = kernels.kernels_that_ran(lambda: probe(self._prepared.subject, inputs))
        self.facts = replace(self.facts, passes=plan.named(self.facts.passes, names))

    def _finish(self, status: str, error: str | None, peak: PeakMemory, compiled_before: int | None) -> None:
        trace = self.recorder.snapshot()
        names = [track.name for track in trace.tracks]
        sampled_peak = None
        if "rss" in names:
            samples = trace.counters["value"][trace.counters["track"] == names.index("rss")]
            sampled_peak = int(samples.max()) if len(samples) else None
        compiled = compile_ns()
        self.facts = replace(
            self.facts,
            status=status,
            error=error,
            rss_peak_bytes=peak.bytes(sampled_peak),
            device_peak_bytes=self._target.peak_bytes(),
            paused_ns=int(trace.moments["paused_ns"].sum()),
            compile_ns=compiled - (compiled_before or 0) if compiled and compiled != compiled_before else None,
            cold_start_ns=self._cold_start_ns(),
            unavailable=(*self.facts.unavailable, *self._trouble, *_never_measured(self.config)),
        )

    def _cold_start_ns(self) -> int | None:
        """Load, apply and first token of a model that nothing had run on; None where it had been used before."""
        moments = self.recorder.moments.view()
        if not self._prepared.fresh or not len(moments["latency_ns"]) or moments["latency_ns"][0] < 0:
            return None
        return self._prepared.loaded.load_ns + self._prepared.apply_ns + int(moments["latency_ns"][0])

    def _sampled(self) -> list[Instrument]:
        known = instruments()
        chosen = []
        for name in self.config.profilers:
            instrument = known[name]
            why = instrument.check()
            if why is not None:
                self._trouble.append(Unavailable(name, why))
            elif instrument.period_s is not None:
                chosen.append(instrument)
        return chosen


def default_name(config: RunConfig, facts: RunFacts) -> str:
    """What a run is called until someone names it: its model and its passes."""
    passes = " + ".join(report.title for report in facts.passes) or config.model.dtype
    return f"{facts.model.name if facts.model else config.model.spec} · {passes}"


def _never_measured(config: RunConfig) -> tuple[Unavailable, ...]:
    """What people look for and this version or this run does not measure."""
    why = [Unavailable("cycles", "this version does not read the processor's cycle counters")]
    why.append(Unavailable("energy", "this version does not read energy counters"))
    if "layer_clock" not in config.profilers:
        why.append(Unavailable("layers", "the layer clock was switched off for this run"))
    return tuple(why)
