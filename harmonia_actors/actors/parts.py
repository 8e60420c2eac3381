"""What every process of Harmonia on Ray is made of: store, blobs, registry, files, limits.

The composition root of actors and replicas: from settings to the objects of `runtime`.
"""

from __future__ import annotations

from pathlib import Path

from harmonia_actors.components.registry import Registry
from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.runtime.attempt_log import LogLimits
from harmonia_actors.runtime.census import CensusTimes
from harmonia_actors.runtime.dispatch import DispatchLimits
from harmonia_actors.runtime.files import WorkspaceFiles
from harmonia_actors.runtime.host import HostLimits
from harmonia_actors.runtime.janitor import JanitorLimits
from harmonia_actors.runtime.ordering import OrderingLimits
from harmonia_actors.runtime.pool_host import PoolTimes
from harmonia_actors.runtime.pool_sizes import PoolSizes
from harmonia_actors.runtime.remote_components import load_registry
from harmonia_actors.runtime.service.schema_checks import SchemaChecks
from harmonia_actors.runtime.service.schema_process import CheckLimits
from harmonia_actors.runtime.silence import Patience
from harmonia_actors.runtime.sizing import SizingLimits, owners_max
from harmonia_actors.runtime.supervision import SupervisionTimes
from harmonia_actors.runtime.task_host import TaskHostLimits
from harmonia_actors.settings import Settings
from persistence.blobs import BlobStore, blob_store
from persistence.redis_store import RedisStore

__all__ = [
    "census_times",
    "connect_store",
    "core_limits",
    "dispatch_limits",
    "host_limits",
    "janitor_limits",
    "make_blobs",
    "make_files",
    "make_registry",
    "make_schema_checks",
    "ordering_limits",
    "patience",
    "pool_sizes",
    "pool_times",
    "sizing_limits",
    "supervision_times",
    "task_host_limits",
    "with_owners_max",
]


def connect_store(settings: Settings) -> RedisStore:
    """The durable store; connects when it is first used."""
    return RedisStore.connect(
        settings.redis_url.get_secret_value(),
        settings.namespace,
        connections_max=settings.redis_connections_max,
        timeout_ms=settings.redis_timeout_ms,
        log_entries_max=settings.log_entries_max,
        crashes_kept_ms=int(settings.crashes_kept_s * 1000),
    )


def make_blobs(settings: Settings) -> BlobStore:
    """Where large outputs go."""
    return blob_store(settings.blob_url or str(settings.data_dir.resolve() / "blobs"))


def make_registry(settings: Settings) -> Registry:
    """All components that are installed or configured."""
    return load_registry(settings)


def make_schema_checks(settings: Settings) -> SchemaChecks:
    """Judges inputs of remote actions where they run; an attempt has time to wait its turn."""
    limits = CheckLimits(settings.schema_check_cpu_s_max, settings.schema_check_memory_bytes_max)
    return SchemaChecks(limits, turn_s=None)


def make_files(settings: Settings, node_id: str) -> WorkspaceFiles:
    """The workspaces on this node."""
    root = Path(settings.workspace_dir or settings.data_dir.resolve() / "workspaces")
    if not settings.workspace_shared and settings.workspace_per_node:
        root = root / node_id[:12]
    allowed = tuple(Path(directory) for directory in settings.allowed_dirs)
    return WorkspaceFiles(root, allowed, (settings.data_dir.resolve(),))


def core_limits(settings: Settings) -> CoreLimits:
    """Bounds of an execution's decisions."""
    return CoreLimits(
        lost_attempts_max=settings.lost_attempts_max,
        stretch_tasks_max=settings.stretch_tasks_max,
        progress_events_max=settings.events_per_execution_max,
        log_bytes_max=settings.task_log_execution_bytes_max,
        inline_output_bytes_max=settings.inline_output_bytes_max,
        checkpoints_kept=settings.automatic_checkpoints_kept,
    )


def ordering_limits(settings: Settings) -> OrderingLimits:
    """Sizes of inputs and outputs."""
    return OrderingLimits(
        resolved_input_bytes_max=settings.resolved_input_bytes_max,
        inline_output_bytes_max=settings.inline_output_bytes_max,
        output_bytes_max=settings.output_bytes_max,
        output_depth_max=settings.output_depth_max,
    )


def host_limits(settings: Settings) -> HostLimits:
    """Bounds of an execution actor."""
    return HostLimits(
        owners_max=_owners_max(settings),
        lease_ms=settings.lease_ms,
        executions_max=settings.executions_per_actor_max,
        output_cache_bytes=settings.output_cache_bytes,
        attempts_in_flight_max=settings.attempts_in_flight_max,
        crashes_max=settings.quarantine_crashes,
        calm_s=settings.suspect_calm_s,
        in_flight_bytes_max=settings.in_flight_bytes_max,
        lines_wait_ms=settings.task_log_interval_ms,
        lines_waiting_bytes_max=settings.task_log_waiting_bytes_max,
    )


def dispatch_limits(settings: Settings) -> DispatchLimits:
    """How attempts are batched and stopped."""
    return DispatchLimits(
        batch_target_ms=settings.batch_target_ms,
        batch_attempts_max=settings.batch_attempts_max,
        batch_bytes_max=settings.batch_bytes_max,
        shared_attempts_max=settings.async_attempts_max,
        cancel_grace_ms=settings.cancel_grace_ms,
        turn_ms=settings.lease_turn_ms,
        unreachable_s_max=settings.unreachable_s_max,
    )


def pool_sizes(settings: Settings) -> PoolSizes:
    """How many task actors there may be."""
    return PoolSizes(
        warm_min=settings.task_actors_min,
        actors_max=settings.task_actors_max,
        idle_ms=int(settings.task_actor_idle_s * 1000),
    )


def census_times(settings: Settings) -> CensusTimes:
    """How patient a new owner is with task actors."""
    return CensusTimes(patience(settings), settings.census_s_max)


def pool_times(settings: Settings) -> PoolTimes:
    """How patient the pool is."""
    return PoolTimes(patience=patience(settings))


def with_owners_max(settings: Settings, cpus: float) -> Settings:
    """The settings with the ceiling of execution actors that a cluster with so many CPUs gets.

    Set once for all processes of an installation: who gives executions to actors must agree on it.
    """
    ceiling = owners_max(settings.execution_actors_max, settings.execution_actors_min, cpus)
    return settings.model_copy(update={"execution_actors_max": ceiling})


def _owners_max(settings: Settings) -> int:
    return owners_max(settings.execution_actors_max, settings.execution_actors_min)


def sizing_limits(settings: Settings) -> SizingLimits:
    """How many execution actors there may be."""
    return SizingLimits(
        least=settings.execution_actors_min,
        most=_owners_max(settings),
        spare=settings.execution_actors_spare,
    )


def supervision_times(settings: Settings) -> SupervisionTimes:
    """How patient the supervisor is."""
    return SupervisionTimes(patience(settings), settings.lease_ms)


def patience(settings: Settings) -> Patience:
    """How long actors that cannot be reached may still be alive."""
    return Patience(silent_s_max=settings.unreachable_s_max)


def task_host_limits(settings: Settings) -> TaskHostLimits:
    """Times and sizes of a task actor."""
    allowed = settings.allow_commands
    return TaskHostLimits(
        start_report_ms=settings.start_report_ms,
        stretch_ms=settings.stretch_ms,
        progress_interval_ms=settings.progress_interval_ms,
        log=LogLimits(
            interval_ms=settings.task_log_interval_ms,
            line_bytes_max=settings.task_log_line_bytes_max,
            piece_bytes_max=settings.task_log_event_bytes_max,
            bytes_max=settings.task_log_bytes_max,
        ),
        allowed_commands=None if allowed is None else frozenset(allowed),
        live_attempts_max=settings.async_attempts_max,
    )


def janitor_limits(settings: Settings) -> JanitorLimits:
    """How long what has ended is kept, and how much is cleaned at a time."""
    kept_s = settings.retention_s
    return JanitorLimits(
        retention_ms=None if kept_s is None else int(kept_s * 1000),
        orphan_age_s=settings.janitor_orphan_age_s,
        round_max=settings.janitor_round_max,
        compact_bytes_min=settings.store_rewrite_bytes_min if settings.store_rewrite else None,
    )
