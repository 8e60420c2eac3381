"""Templates: a definition of its own with parameters, and the workflows made from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.definition import build_workflow, nearest
from harmonia_actors.core.errors import Problem, TemplateNotFound, ValidationFailed
from harmonia_actors.core.requests import JsonObject, Once, PageRequest
from harmonia_actors.core.timestamps import timestamp
from harmonia_actors.runtime.service.once import creation_of
from harmonia_actors.runtime.service.parts import answered
from harmonia_actors.runtime.service.schema import (
    as_json_schema,
    required_inputs,
    with_defaults,
)
from harmonia_actors.runtime.service.workflows import KnownWorkflow, WorkflowService
from persistence.errors import AlreadyExists, DefinitionMissing
from persistence.store import IndexEntry

__all__ = ["TemplateService"]

_LIST = "templates:created_at"


class TemplateService(WorkflowService):
    """Operations on templates."""

    async def create_template(self, request: JsonObject, *, once: Once | None = None) -> JsonObject:
        """From `workflow_id` or from a `definition`, which then becomes a workflow too."""
        creation = creation_of(once, "create_template", request)
        if made := (await self.made_before(creation)).get("template"):
            return await self._shown(made)
        name, description = self._texts(request, "template")
        if ("workflow_id" in request) == ("definition" in request):
            problem = Problem("workflow_id", "give either workflow_id or definition")
            raise ValidationFailed("template", [problem])
        if "workflow_id" in request:
            workflow_id = request["workflow_id"]
            _, known = await self.find_workflow(workflow_id)
            parameters = await self._parameters(request.get("parameters"), known.definition)
        else:
            # Nothing is made of a definition whose parameters are not good.
            definition = await self.checked(request["definition"])
            parameters = await self._parameters(request.get("parameters"), definition)
            workflow_id = (await self.store_workflow(definition, creation))["workflow_id"]
            known = await self.known(await answered(lambda: self.keep_definition(definition)))
        now_ms = self.clock.now_ms()
        record = {
            "name": name,
            "description": description,
            "workflow_id": workflow_id,
            "parameters": parameters,
            "definition": known.digest,
            "created_ms": now_ms,
            "updated_ms": now_ms,
            **creation.record_fields(),
        }
        template_id = creation.id("tmpl")

        async def put() -> None:
            while True:
                try:
                    await self.store.put_document(
                        "template",
                        template_id,
                        jsontext.encode(record),
                        [IndexEntry(_LIST, float(now_ms))],
                        definition=known.digest,
                        expected_version=0,
                    )
                except DefinitionMissing:
                    await self.keep_definition(known.definition)
                else:
                    return

        try:
            await answered(put)
        except AlreadyExists:
            # Another send with the same key was faster.
            return await self._shown(await self.made_meanwhile(creation, "template"))
        return _document(template_id, record)

    async def get_template(self, template_id: str) -> JsonObject:
        """The template with its tasks. Raises TemplateNotFound."""
        record, known = await self._find_template(template_id)
        return {**_document(template_id, record), "tasks": known.definition["tasks"]}

    async def list_templates(self, page: PageRequest) -> JsonObject:
        """One page of templates."""
        return await self.page_of_documents("template", _LIST, page, _document)

    async def delete_template(self, template_id: str) -> None:
        """Remove a template; workflows made from it stay."""
        if not await answered(lambda: self.store.delete_document("template", template_id)):
            raise TemplateNotFound(template_id)

    async def instantiate_template(
        self, template_id: str, request: JsonObject, *, once: Once | None = None
    ) -> JsonObject:
        """Make a workflow that has the parameters' values as defaults of its input."""
        creation = creation_of(once, "instantiate_template", template_id, request)
        if workflow_id := (await self.made_before(creation)).get("workflow"):
            return {"template_id": template_id, **await self.get_workflow(workflow_id)}
        record, known = await self._find_template(template_id)
        name, description = self._texts({"name": record["name"], **request}, "workflow")
        values = await self.schemas.complete_input(
            request.get("parameter_values") or {},
            record["parameters"],
            {},
            subject="template instance",
            field="parameter_values",
        )
        definition = dict(known.definition)
        definition["name"] = name
        definition["description"] = description or record["description"]
        definition["input_schema"] = with_defaults(definition.get("input_schema"), values)
        made = await self.store_workflow(definition, creation, template_id=template_id)
        return {"template_id": template_id, **made}

    async def _shown(self, template_id: str) -> JsonObject:
        record, _ = await self._find_template(template_id)
        return _document(template_id, record)

    async def _find_template(self, template_id: str) -> tuple[dict[str, Any], KnownWorkflow]:
        stored = await answered(lambda: self.store.get_document("template", template_id))
        if stored is None:
            raise TemplateNotFound(template_id)
        record = jsontext.decode(stored.body)
        return record, await self.known(record["definition"])

    def _texts(self, request: Mapping[str, Any], subject: str) -> tuple[str, str | None]:
        problems = []
        limits = (
            ("name", self.settings.name_length_max),
            ("description", self.settings.description_length_max),
        )
        for key, length_max in limits:
            value = request.get(key)
            if value is None and key == "description":
                continue
            if not isinstance(value, str) or not value.strip():
                problems.append(Problem(key, "must be a text that is not empty"))
            elif len(value) > length_max:
                problems.append(
                    Problem(key, f"has {len(value)} characters; at most {length_max} are allowed")
                )
        if problems:
            raise ValidationFailed(subject, problems)
        return request["name"], request.get("description")

    async def _parameters(self, raw: Any, definition: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters; by default the workflow's inputs."""
        schema = definition.get("input_schema")
        needed = required_inputs(build_workflow(definition))
        if raw is None:
            return dict(schema) if schema is not None else {n: {"required": True} for n in needed}
        inputs = (as_json_schema(schema).get("properties") or {}) if schema else {}
        of_schema = await self.schemas.of_schema(raw)
        problems = [Problem(f"parameters{where}", text) for where, text in of_schema]
        if not problems and schema is not None:
            names = {*inputs, *needed}
            for name in as_json_schema(raw).get("properties") or {}:
                if name not in names:
                    hint = nearest(name, names) if len(problems) < 10 else ""
                    text = f"the workflow has no such input{hint}"
                    problems.append(Problem(f"parameters.{name}", text))
                if len(problems) >= ValidationFailed.SHOWN_MAX:
                    break
        if problems:
            raise ValidationFailed("template", problems)
        return dict(raw)


def _document(template_id: str, record: Mapping[str, Any]) -> JsonObject:
    return {
        "template_id": template_id,
        "name": record["name"],
        "description": record["description"],
        "workflow_id": record["workflow_id"],
        "created_at": timestamp(record["created_ms"]),
        "updated_at": timestamp(record["updated_ms"]),
        "parameters": record["parameters"],
    }
