"""Parts made by Ray: actors that hold the model, on this machine or a cluster, and perhaps others that hold the labels."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import Any

from xmc import errors
from xmc.batch.options import JobOptions
from xmc.batch.output import Output
from xmc.batch.plan import Part, Plan
from xmc.batch.search import SearchActor
from xmc.batch.summary import Done, Summary
from xmc.batch.work import WorkSpecification, load_work
from xmc.batch.worker import Worker
from xmc.errors import DependencyError, XMCError, cause_in_words
from xmc.faults import RemoteFault

__all__ = ["RayEngine"]

logger = logging.getLogger("xmc.batch")


class RayEngine:
    """Ray Data over the parts of a plan. An actor that dies is started again, and its part made again, from the beginning.

    Every worker must find the run, the input and the output under the same addresses.
    """

    def __init__(self, work: WorkSpecification, plan: Plan, destination: str, options: JobOptions) -> None:
        """Connect to the cluster, or start one on this machine. Raises DependencyError where it cannot be reached."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._work, self._plan, self._destination, self._options = work, plan, destination, options
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                ray.init(address=options.address, include_dashboard=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise DependencyError(f"Ray at {options.address} cannot be reached: {error}") from error

    def __call__(
        self, parts: list[Part], summary: Summary, advance: Callable[[int], None]
    ) -> Generator[Done, None, None]:
        """See xmc.batch.job.JobEngine."""
        import ray
        import ray.data

        try:
            _quiet(ray)
            available: dict[str, float] = ray.cluster_resources()
            workers, resources = self._placed(available, len(parts))
            shards = self._shards(ray, resources)
            logger.info("Ray: %s workers with %s each, labels in %s shards", workers, resources, len(shards) or "no")
            made = ray.data.from_items(
                [{"part": part.number} for part in parts], override_num_blocks=len(parts)
            ).map_batches(
                _Actor,
                fn_constructor_args=(self._work, self._plan, self._destination, self._options.on_bad_row, shards),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=workers),
                **resources,
            )
            for row in made.iter_rows():
                result = json.loads(row["result"])
                if "trace" in result:
                    raise RemoteFault(result["message"], result["trace"])
                if "error" in result:
                    raise getattr(errors, result["error"])(result["message"], again=result["again"])
                done = Done(**result["done"])
                summary.busy.update(result["busy"])
                advance(done.rows)
                yield done
        finally:
            if self._ours:
                ray.shutdown()

    def _placed(self, available: dict[str, float], parts: int) -> tuple[int, dict[str, Any]]:
        """The number of workers, and what each of them takes."""
        gpus, processors = int(available.get("GPU", 0)), available.get("CPU", 1.0)
        shards = self._options.index_shards
        workers = self._options.workers or gpus or max(1, int(processors - shards) // 2)
        workers = min(workers, parts)
        share = processors / (workers + shards)
        resources: dict[str, Any] = {"num_cpus": int(share) if share >= 1 else int(100 * share) / 100}
        if gpus:
            resources["num_gpus"] = min(1.0, gpus / workers)
        return workers, resources

    def _shards(self, ray: Any, resources: dict[str, Any]) -> tuple[Any, ...]:
        count = self._options.index_shards
        actor = ray.remote(SearchActor)
        options = {"num_cpus": resources["num_cpus"], "max_restarts": -1, "max_task_retries": -1}
        of = self._work.run, self._plan.work["run"]
        shards = tuple(actor.options(**options).remote(*of, number, count) for number in range(count))
        for shard in shards:
            ray.get(shard.ready.remote())
        return shards


class _Actor:
    """Holds the work, and makes the parts whose numbers it is given. An XMCError is a result like any other."""

    def __init__(
        self, work: WorkSpecification, plan: Plan, destination: str, policy: str, shards: tuple[Any, ...]
    ) -> None:
        self._parts = plan.parts
        self._failure: XMCError | None = None
        try:
            self._worker = Worker(load_work(work, plan.work["run"], shards), plan, Output(destination), policy)
        except XMCError as error:
            self._failure = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._failure is not None:
                raise self._failure
            (done,) = self._worker.make([self._parts[int(batch["part"][0])]], lambda rows: None)
            result: dict[str, Any] = {"done": asdict(done), "busy": dict(self._worker.busy)}
        except XMCError as error:
            result = {"error": type(error).__name__, "message": str(error), "again": error.again}
        except Exception as error:
            result = {"message": f"{type(error).__name__}: {cause_in_words(error)}", "trace": traceback.format_exc()}
        return {"result": [json.dumps(result)]}


def _quiet(ray: Any) -> None:
    """No bars and reports beside those of the job."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
