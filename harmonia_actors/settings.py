"""Every setting and limit of Harmonia: its name, its unit, its default and why it is there.

Read from the environment once (`HARMONIA_` and the name in capitals) by whoever starts Harmonia,
then handed on as one frozen object: actors and replicas never read the environment themselves.
The README's configuration table is made from this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from harmonia_actors.core.origins import origin_as_sent
from harmonia_actors.settings_handing_out import HandingOutSettings
from harmonia_actors.settings_telling import TellingSettings

__all__ = ["Settings"]

_WARM_LEAST: Final = 2
_PLACES_FOR_OTHERS: Final = 2


class Settings(HandingOutSettings, TellingSettings):
    """All settings. Units are in the names: `_ms`, `_s`, `_bytes`, `_max` (a count)."""

    model_config = SettingsConfigDict(env_prefix="HARMONIA_", frozen=True, extra="ignore")

    # Where things are
    namespace: str = Field(
        "harmonia",
        pattern=r"^[a-z][a-z0-9-]{0,31}$",
        description="Prefix of every key in Redis and every actor's name, so that several "
        "installations can share a Redis or a Ray cluster.",
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="The durable store: a Redis-protocol server, one primary, no cluster mode.",
    )
    redis_connections_max: int = Field(
        32, ge=1, description="Connections to the store that one process opens at most."
    )
    redis_timeout_ms: int = Field(
        10_000,
        ge=1,
        description="How long the store may take to answer before it counts as unavailable.",
    )
    durability_age_s_max: float = Field(
        5.0,
        ge=0,
        description="How old what is said of the store's promise may be; then its configuration "
        "is read again.",
    )
    data_dir: Path = Field(
        Path(".harmonia"),
        description="What `harmonia up` keeps: the embedded store, blobs, workspaces, logs.",
    )
    blob_url: str = Field(
        "",
        description="Where large outputs go: a file:// or fsspec URL (s3://…). "
        "Empty: the data directory.",
    )
    workspace_dir: str = Field(
        "",
        description="Directory of the executions' working directories. Empty: the data directory.",
    )
    workspace_shared: bool = Field(
        False,
        description="True if `workspace_dir` is one and the same on every node. If not, the tasks "
        "of an execution that use files all run on one node.",
    )
    workspace_per_node: bool = Field(
        False,
        description="Give each node a directory of its own below `workspace_dir`: for several "
        "nodes on one machine.",
    )
    allowed_dirs: Annotated[tuple[str, ...], NoDecode] = Field(
        ("/tmp",),  # noqa: S108 - the API reference's own examples write there
        description="Directories besides the workspace that actions may read and write, "
        "comma-separated.",
    )
    allow_commands: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None,
        description="Programs that commands may run, comma-separated. Unset: any. "
        "Required when the service is bound beyond loopback.",
    )
    components: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Modules with further components, and URLs of services that offer remote ones, "
        "comma-separated, besides the entry points.",
    )
    component_tokens: dict[str, SecretStr] = Field(
        {},
        description="Bearer tokens of services with remote components, as a JSON object with the "
        "token of each URL that needs one.",
    )
    #: What each service has said that it offers, by its URL, packed: whoever starts Harmonia has
    #: asked, so that every process knows the same, also when a service is away. Set by no user.
    component_catalogues: dict[str, str] = Field({}, exclude=True, repr=False)
    remote_connect_s_max: float = Field(
        10.0, gt=0, description="Time to connect to a service with remote components."
    )
    remote_silence_s_max: float = Field(
        600.0,
        gt=0,
        description="How long a remote action may say nothing: until its answer begins, and "
        "between two pieces of it.",
    )
    remote_catalogue_s_max: float = Field(
        10.0, gt=0, description="Time that fetching a catalogue of remote components may take."
    )
    remote_catalogue_bytes_max: int = Field(
        1_000_000, gt=0, description="Size of a catalogue of remote components, as JSON."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        description="From which level on Harmonia's processes write to their logs, which Ray keeps "
        "and its dashboard shows.",
    )

    # HTTP
    host: str = Field("127.0.0.1", description="Address that REST, WebSocket and SSE listen on.")
    port: int = Field(8002, ge=1, le=65535, description="Port they listen on.")
    ingress: Literal["auto", "haproxy", "python"] = Field(
        "auto",
        description="What takes the requests on a cluster that Harmonia starts: HAProxy, several "
        "times faster, or Serve's proxy in Python. auto: HAProxy where it can be run.",
    )
    rest_replicas: int = Field(1, ge=1, description="Replicas of the REST deployment.")
    stream_replicas: int = Field(
        1, ge=1, description="Replicas of the WebSocket and of the SSE deployment, each."
    )
    body_bytes_max: int = Field(10_000_000, gt=0, description="Largest request body.")
    json_depth_max: int = Field(
        64, gt=0, description="Deepest nesting of a request's JSON, and of a remote catalogue."
    )
    body_read_timeout_s: float = Field(
        30.0, gt=0, description="Time a request's body may take to arrive."
    )
    sync_wait_s_max: int = Field(
        300, ge=0, description='Longest wait of a request with "async": false; then 202.'
    )
    page_limit_max: int = Field(100, gt=0, description="Most items on one page of a list.")
    rate_limit_per_s: float = Field(
        1000.0, gt=0, description="Requests a second per key, unless the key has its own limit."
    )
    rate_limit_burst_s: float = Field(
        2.0, gt=0, description="How many seconds' worth of requests may come at once."
    )
    failed_auth_per_s: float = Field(
        20.0, gt=0, description="Failed authentications a second from one address."
    )
    query_keys: bool = Field(
        True,
        description="Whether `?api_key=` is taken on WebSocket and SSE, as the reference has it.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins besides the service's own whose pages may open WebSockets and read "
        "event streams, comma-separated, like https://dash.example.com; no wildcards.",
    )
    stream_heartbeat_s: float = Field(15.0, gt=0, description="Time between signs of life.")
    stream_key_check_s: float = Field(
        5.0, gt=0, description="Time between looks whether a stream's key is still good."
    )
    stream_unconfirmed_s_max: float = Field(
        300.0,
        gt=0,
        description="How long a stream goes on while the store cannot say whether its key is good.",
    )
    stream_age_s_max: float = Field(
        3600.0,
        gt=0,
        description="Oldest age of a stream; some end up to a tenth sooner, so that not all that "
        "were opened at once come back at once. Then the client is asked to resume.",
    )
    streams_per_replica_max: int = Field(4000, gt=0, description="Open streams one replica holds.")
    streams_per_key_max: int = Field(
        2000, gt=0, description="Open streams of one key that one replica holds."
    )
    stream_send_timeout_s: float = Field(
        20.0, gt=0, description="Time one send to a subscriber may take before it is cut off."
    )
    stream_buffer_events_max: int = Field(
        500, gt=0, description="Events of one send, which a slow subscriber's connection holds."
    )
    stream_buffer_bytes_max: int = Field(
        256_000, gt=0, description="Bytes a stream holds and sends at a time, or a larger event."
    )
    stream_recent_bytes_max: int = Field(
        64_000_000,
        ge=0,
        description="Recent events one replica keeps in memory for its subscribers; older ones are "
        "read from the store.",
    )
    stream_summary_interval_ms: int = Field(
        500,
        ge=0,
        description="Shortest time between two summaries on one stream that asks for them.",
    )
    stream_summary_names_max: int = Field(
        20, ge=0, description="Names in a summary of tasks that run, and of tasks that have failed."
    )
    stream_installation_bytes_max: int = Field(
        16_000_000,
        ge=0,
        description="Recent events of all executions that one replica keeps in memory for those "
        "who follow everything.",
    )
    stream_messages_max: int = Field(
        1_000, gt=0, description="Messages a WebSocket client sends in vain before it is cut off."
    )

    # Workflows
    workflow_tasks_max: int = Field(10_000, gt=0, description="Tasks of one workflow.")
    workflow_edges_max: int = Field(100_000, gt=0, description="Dependencies of one workflow.")
    name_length_max: int = Field(128, gt=0, description="Characters of a name or an id.")
    description_length_max: int = Field(10_000, gt=0, description="Characters of a description.")
    schema_check_cpu_s_max: float = Field(
        2.0,
        gt=0,
        description="Processor time of one check of a schema, or of an input against its schema.",
    )
    schema_check_memory_bytes_max: int = Field(
        1_000_000_000,
        ge=200_000_000,
        description="Memory of a process that checks schemas which are not plain and small.",
    )
    template_parameters_bytes_max: int = Field(
        262_144, gt=0, description="Size of the parameters given to a template, as JSON."
    )
    references_per_task_max: int = Field(
        20_000, gt=0, description="References in one task's input."
    )
    resolved_input_bytes_max: int = Field(
        16_000_000,
        gt=0,
        description="Size of a task's input once its references are resolved, as JSON.",
    )
    output_bytes_max: int = Field(
        256_000_000, gt=0, description="Size of one task's output, as JSON."
    )
    output_depth_max: int = Field(
        200, gt=0, description="Objects and arrays within each other in one task's output."
    )
    inline_output_bytes_max: int = Field(
        65_536, ge=0, description="Largest output kept in Redis; larger ones go to the blob store."
    )
    response_outputs_bytes_max: int = Field(
        1_000_000, ge=0, description="Outputs shown in one response; beyond it they are references."
    )
    status_tasks_max: int = Field(
        1_000, gt=0, description="Tasks shown in an execution's status; /tasks pages through all."
    )

    # Executions and tasks
    execution_timeout_s_max: float = Field(
        30 * 86_400.0,
        gt=0,
        description="Ceiling of every execution's time, whatever timeout it has.",
    )
    retries_max: int = Field(100, ge=0, description="Largest `max_retries` a policy may ask for.")
    lost_attempts_max: int = Field(
        5, ge=0, description="How often a task is started again after its process died under it."
    )
    cancel_grace_ms: int = Field(
        3_000,
        ge=0,
        description="Time an attempt has to stop by itself before its process is killed.",
    )
    start_report_ms: int = Field(
        20, ge=0, description="A start is told at once if the attempt runs longer than this."
    )
    log_entries_max: int = Field(
        100_000,
        ge=1,
        description="Commits whose events the stream of the whole installation can be resumed "
        "after; about 60 bytes each in the store.",
    )
    automatic_checkpoints_kept: int = Field(
        5,
        ge=1,
        description="Automatic checkpoints of one execution that are kept, the newest, if it does "
        "not say how many; its `keep`.",
    )
    automatic_checkpoints_kept_max: int = Field(
        100, ge=1, description="Largest `keep` of automatic checkpoints that may be asked for."
    )
    output_cache_bytes: int = Field(
        64_000_000, ge=0, description="Outputs an execution actor keeps in memory for resolving."
    )

    # Retention and admission
    retention_s: float | None = Field(
        7 * 86_400.0,
        ge=1,
        le=1e10,
        description="How long an execution is kept after its end, with its events, outputs and "
        "files; `never`: nothing expires.",
    )
    executions_live_max: int = Field(
        100_000,
        ge=1,
        description="Executions that have not ended; beyond it, new ones are refused with 429.",
    )
    janitor_interval_s: float = Field(
        600.0, gt=0, description="Time between two rounds of the janitor, unless it has more to do."
    )
    janitor_round_max: int = Field(
        5_000,
        ge=1,
        description="Executions that one round lets expire, and names of blobs and directories it "
        "looks at in each place.",
    )
    janitor_orphan_age_s: float = Field(
        86_400.0,
        ge=60,
        description="Age from which blobs and directories of an execution that the store does not "
        "know are removed.",
    )
    store_rewrite: bool | None = Field(
        None,
        description="Whether the janitor asks the store to write its append-only file anew once it "
        "is larger than all that the store has in memory. Unset: the embedded store only.",
    )
    store_rewrite_bytes_min: int = Field(
        8_000_000, ge=0, description="Size of that file from which on it is worth it."
    )
    audit_page_max: int = Field(
        200, ge=1, description="Events, or outputs, that an audit reads from the store at a time."
    )
    audit_violations_max: int = Field(
        100, ge=1, description="Violations that one audit lists; all are counted."
    )
    audits_at_once_max: int = Field(
        2, ge=1, description="Audits that one replica does at a time; others wait for their turn."
    )

    # Pools
    broadcasters: int = Field(
        1, ge=1, description="Actors that hand events to replicas, of a share of executions each."
    )
    node_types: tuple[dict[str, float], ...] = Field(
        (),
        description="Resources of nodes that the autoscaler may add, as JSON, where Harmonia "
        'cannot find them out (Kubernetes): [{"CPU": 8, "GPU": 1, "memory": 32e9}].',
    )
    execution_actors_min: int = Field(2, ge=1, description="Execution actors kept warm.")
    execution_actors_max: int = Field(
        0,
        ge=0,
        description="Ceiling of execution actors; beyond it they host several executions. 0: two "
        "per CPU that there is when Harmonia starts, at least 4 and at most 100.",
    )
    execution_actors_spare: int = Field(
        1,
        ge=0,
        description="Idle execution actors kept ready besides those that work, also beyond the "
        "ceiling: there, what a dead one leaves behind goes on at once.",
    )
    executions_per_actor_max: int = Field(
        2_000,
        gt=0,
        description="Live executions one execution actor hosts; others wait until some have ended.",
    )
    task_actors_min: int = Field(
        0,
        ge=0,
        description="Task actors of the default class kept warm. 0: one per CPU, 2 at least; "
        "2 where an autoscaler adds nodes, which warm actors would keep for ever.",
    )
    task_actors_max: int = Field(
        0,
        ge=0,
        description="Ceiling of task actors, at least two above the warm ones. "
        "0: four times the CPUs that there are, 16 at least.",
    )
    task_actor_idle_s: float = Field(
        60.0, ge=0, description="Idle time after which a task actor beyond the warm floor ends."
    )
    async_attempts_max: int = Field(
        1_000, gt=0, description="Attempts of async actions that one actor runs at a time."
    )
    quarantine_crashes: int = Field(
        3,
        gt=1,
        description="Crashes in a row of whatever drives an execution, after the first one alone, "
        "until it is given up: failed, with the code `quarantined`.",
    )
    suspect_calm_s: float = Field(
        0.1,
        gt=0,
        description="Time alone that clears an execution which was there when its execution actor "
        "died; four times as long for each further crash lately.",
    )
    crashes_kept_s: float = Field(
        3_600.0,
        gt=0,
        description="After so long without a crash, an execution's earlier ones are forgotten.",
    )
    lease_ms: int = Field(
        10_000,
        gt=0,
        description="Lease of an execution actor on its executions, renewed at a third.",
    )
    unreachable_s_max: float = Field(
        60.0,
        gt=0,
        description="An actor that lives but cannot be reached, try after try, for so long is "
        "ended; what ran in it is started again.",
    )
    census_s_max: float = Field(
        60.0,
        gt=0,
        description="A task actor that does not tell a new owner what it runs for so long is "
        "ended; what ran in it is started again.",
    )

    # What `harmonia up` watches over
    up_start_s_max: float = Field(
        180.0, gt=0, description="Longest silence of a part that starts, until it is given up."
    )
    up_nodes_s_max: float = Field(
        1_800.0,
        gt=0,
        description="Longest wait of a start for a node with CPUs that an autoscaler may add.",
    )
    up_stop_s_max: float = Field(
        60.0, gt=0, description="Time Ray and Serve have to stop by themselves, then are killed."
    )
    up_health_interval_s: float = Field(
        5.0, gt=0, description="Time between two looks at whether the service answers."
    )
    up_unanswered_s_max: float = Field(
        90.0, gt=0, description="A service that does not answer for so long is started again."
    )
    up_restarts_max: int = Field(
        5, ge=0, description="Restarts within `up_restart_window_s`, after which `up` gives up."
    )
    up_restart_window_s: float = Field(600.0, gt=0, description="See `up_restarts_max`.")

    @field_validator(
        "allowed_dirs", "allow_commands", "components", "allowed_origins", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        """Comma-separated text becomes a tuple."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _as_sent(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """One that no browser sends would be without effect, and nobody would know why."""
        return tuple(origin_as_sent(origin) for origin in value)

    @field_validator("task_actors_max")
    @classmethod
    def _leave_places(cls, value: int, info: ValidationInfo) -> int:
        """Warm actors must not take all places: tasks with resources of their own need some."""
        warm = info.data.get("task_actors_min") or _WARM_LEAST
        if value and value < warm + _PLACES_FOR_OTHERS:
            raise ValueError(
                f"it must be 0 or at least {warm + _PLACES_FOR_OTHERS}: {warm} task actors are "
                f"kept warm, and {_PLACES_FOR_OTHERS} places are for tasks with resources of "
                "their own; raise it, or keep fewer warm (HARMONIA_TASK_ACTORS_MIN)"
            )
        return value

    @model_validator(mode="after")
    def _bounds_agree(self) -> Settings:
        if 0 < self.execution_actors_max < self.execution_actors_min:
            raise ValueError(
                f"execution_actors_min is {self.execution_actors_min}, above execution_actors_max "
                f"({self.execution_actors_max}); lower the one or raise the other"
            )
        return self

    @field_validator("retention_s", mode="before")
    @classmethod
    def _never(cls, value: object) -> object:
        """`never` is no time at all."""
        return None if value == "never" else value

    def for_display(self) -> dict[str, object]:
        """All settings, without secrets, for `harmonia status` and logs."""
        return self.model_dump(mode="json", exclude={"redis_url", "component_tokens"})
