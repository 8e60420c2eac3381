"""The API reference's own examples, as the OpenAPI document shows them.

Data only. What the reference prints as `{ ... }` is filled in from its other examples.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["REQUESTS", "RESPONSES"]

_WORKFLOW_ID: Final = "wf-123e4567-e89b-12d3-a456-426614174000"
_EXECUTION_ID: Final = "exec-123e4567-e89b-12d3-a456-426614174000"
_RESTORED_ID: Final = "exec-abcde123-f456-789d-e012-3456789abcde"
_TEMPLATE_ID: Final = "tmpl-123e4567-e89b-12d3-a456-426614174000"
_CHECKPOINT_ID: Final = "cp-123e4567-e89b-12d3-a456-426614174000"

_TASKS: Final[dict[str, Any]] = {
    "fetch_data": {
        "name": "fetch_data",
        "component": "ergon",
        "action": "execute_command",
        "input": {"command": "curl -o ${workflow.input.output_file} ${workflow.input.data_url}"},
    },
    "process_data": {
        "name": "process_data",
        "component": "sophia",
        "action": "analyze_data",
        "input": {
            "file_path": "${workflow.input.output_file}",
            "analysis_type": "${workflow.input.analysis_type}",
        },
        "depends_on": ["fetch_data"],
    },
    "generate_report": {
        "name": "generate_report",
        "component": "rhetor",
        "action": "generate_content",
        "input": {"template": "report", "data": "${tasks.process_data.output.results}"},
        "depends_on": ["process_data"],
    },
}
_DATA_URL: Final = {"type": "string", "format": "uri", "description": "URL to the data file"}
_OUTPUT_FILE: Final = {"type": "string", "description": "Path to save the downloaded file"}
_ANALYSIS_TYPE: Final = {
    "type": "string",
    "enum": ["basic", "detailed", "comprehensive"],
    "default": "basic",
    "description": "Type of analysis to perform",
}
_INPUT_SCHEMA: Final = {
    "data_url": _DATA_URL,
    "output_file": _OUTPUT_FILE,
    "analysis_type": _ANALYSIS_TYPE,
}
_PARAMETERS: Final = {
    "data_url": {**_DATA_URL, "required": True},
    "output_file": {**_OUTPUT_FILE, "required": True},
    "analysis_type": _ANALYSIS_TYPE,
}
_WORKFLOW: Final = {
    "name": "data_processing_workflow",
    "description": "Process and analyze data files",
    "version": "1.0.0",
}
_CREATED: Final = {"created_at": "2025-01-15T12:00:00Z", "updated_at": "2025-01-15T12:00:00Z"}
_INPUT: Final = {
    "data_url": "https://example.com/data.csv",
    "output_file": "/tmp/data.csv",  # noqa: S108 - the reference's own example
    "analysis_type": "detailed",
}
_OPTIONS: Final = {
    "async": True,
    "timeout": 3600,
    "retry_policy": {"max_retries": 3, "retry_interval": 5},
}
_FETCHED: Final = {
    "status": "completed",
    "started_at": "2025-01-15T14:00:10Z",
    "completed_at": "2025-01-15T14:01:30Z",
    "output": {"exit_code": 0},
}

#: By the name of the request's schema.
REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "WorkflowRequest": {**_WORKFLOW, "tasks": _TASKS, "input_schema": _INPUT_SCHEMA},
    "ExecuteRequest": {
        "workflow_id": _WORKFLOW_ID,
        "input": _INPUT,
        "execution_options": _OPTIONS,
    },
    "TemplateRequest": {
        "name": "data_processing_template",
        "description": "Template for data processing workflows",
        "workflow_id": _WORKFLOW_ID,
        "parameters": _PARAMETERS,
    },
    "InstantiateRequest": {
        "name": "monthly_data_processing",
        "description": "January 2025 data processing workflow",
        "parameter_values": {
            "data_url": "https://example.com/data/jan2025.csv",
            "output_file": "/tmp/jan2025.csv",  # noqa: S108 - the reference's own example
            "analysis_type": "comprehensive",
        },
    },
    "CheckpointRequest": {
        "execution_id": _EXECUTION_ID,
        "name": "mid-processing-checkpoint",
        "description": "Checkpoint before report generation",
    },
    "RestoreRequest": {
        "checkpoint_id": _CHECKPOINT_ID,
        "execution_options": {"async": True, "timeout": 1800},
    },
    "KeyRequest": {"name": "dashboard", "scopes": ["read"], "rate_limit_per_s": 50},
}

#: By the name of the response's schema.
RESPONSES: Final[dict[str, dict[str, Any]]] = {
    "Workflow": {
        "workflow_id": _WORKFLOW_ID,
        **_WORKFLOW,
        **_CREATED,
        "tasks": _TASKS,
        "input_schema": _INPUT_SCHEMA,
    },
    "WorkflowPage": {
        "items": [{"workflow_id": _WORKFLOW_ID, **_WORKFLOW, **_CREATED}],
        "total": 42,
        "page": 1,
        "limit": 20,
    },
    "Execution": {
        "execution_id": _EXECUTION_ID,
        "workflow_id": _WORKFLOW_ID,
        "status": "pending",
        "created_at": "2025-01-15T14:00:00Z",
        "updated_at": "2025-01-15T14:00:00Z",
        "input": _INPUT,
        "execution_options": _OPTIONS,
    },
    "ExecutionState": {
        "execution_id": _EXECUTION_ID,
        "workflow_id": _WORKFLOW_ID,
        "status": "running",
        "progress": {"completed_tasks": 1, "total_tasks": 3, "current_task": "process_data"},
        "created_at": "2025-01-15T14:00:00Z",
        "updated_at": "2025-01-15T14:05:00Z",
        "started_at": "2025-01-15T14:00:10Z",
        "completed_at": None,
        "task_status": {
            "fetch_data": _FETCHED,
            "process_data": {
                "status": "running",
                "started_at": "2025-01-15T14:01:35Z",
                "completed_at": None,
            },
            "generate_report": {"status": "pending", "started_at": None, "completed_at": None},
        },
    },
    "ExecutionPage": {
        "items": [
            {
                "execution_id": _EXECUTION_ID,
                "workflow_id": _WORKFLOW_ID,
                "status": "running",
                "created_at": "2025-01-15T14:00:00Z",
                "updated_at": "2025-01-15T14:05:00Z",
                "started_at": "2025-01-15T14:00:10Z",
                "completed_at": None,
            }
        ],
        "total": 28,
        "page": 1,
        "limit": 20,
    },
    "Cancellation": {
        "success": True,
        "message": "Execution cancellation requested",
        "execution_id": _EXECUTION_ID,
        "status": "cancelling",
    },
    "Template": {
        "template_id": _TEMPLATE_ID,
        "name": "data_processing_template",
        "description": "Template for data processing workflows",
        "workflow_id": _WORKFLOW_ID,
        "created_at": "2025-01-15T15:00:00Z",
        "updated_at": "2025-01-15T15:00:00Z",
        "parameters": _PARAMETERS,
    },
    "Checkpoint": {
        "checkpoint_id": _CHECKPOINT_ID,
        "execution_id": _EXECUTION_ID,
        "workflow_id": _WORKFLOW_ID,
        "name": "mid-processing-checkpoint",
        "description": "Checkpoint before report generation",
        "created_at": "2025-01-15T16:00:00Z",
        "automatic": False,
        "task_states": {
            "fetch_data": {"status": "completed", "output": {"exit_code": 0}},
            "process_data": {"status": "completed", "output": {"results": {}}},
            "generate_report": {"status": "pending"},
        },
    },
    "Restored": {
        "execution_id": _RESTORED_ID,
        "checkpoint_id": _CHECKPOINT_ID,
        "workflow_id": _WORKFLOW_ID,
        "status": "running",
        "created_at": "2025-01-15T16:30:00Z",
        "updated_at": "2025-01-15T16:30:00Z",
        "started_at": "2025-01-15T16:30:05Z",
        "task_status": {
            "fetch_data": _FETCHED,
            "process_data": {
                "status": "completed",
                "started_at": "2025-01-15T14:01:35Z",
                "completed_at": "2025-01-15T14:10:00Z",
                "output": {"results": {}},
            },
            "generate_report": {
                "status": "running",
                "started_at": "2025-01-15T16:30:10Z",
                "completed_at": None,
            },
        },
    },
    "Problem": {
        "error": {
            "code": "workflow_not_found",
            "message": "Workflow with ID 'wf-invalid' not found",
            "details": {"requested_id": "wf-invalid"},
        }
    },
}
