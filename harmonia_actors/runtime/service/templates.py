"""Templates: a definition of its own with parameters, and the workflows made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.definition import build_workflow, nearest
from harmonia_actors.core.errors import Problem, TemplateNotFound, ValidationFailed
from harmonia_actors.core.requests import JsonObject, Once, PageRequest
from harmonia_actors.core.timestamps import timestamp
from harmonia_actors.runtime.service.once import creation_of
from harmonia_actors.runtime.service.parts import answered, apart
from harmonia_actors.runtime.service.schema import (
    as_json_schema,
    required_inputs,
    with_defaults,
)
from harmonia_actors.runtime.service.texts import check_texts
from harmonia_actors.runtime.service.workflows import KnownWorkflow, WorkflowService
from persistence.errors import AlreadyExists, DefinitionMissing
from persistence.store import IndexEntry

__all__ = ["TemplateService"]

_LIST = "templates:created_at"
#: Parameters for which the input that was meant is looked for.
_GUESSES_MAX = 10


class TemplateService(WorkflowService):
    """Operations on templates."""

    async def create_template(self, request: JsonObject, *, once: Once | None = None) -> JsonObject:
        """From `workflow_id` or from a `definition`, which then becomes a workflow too."""
        creation = creation_of(once, "create_template", request)
        if made := (await self.made_before(creation)).get("template"):
            return await self._shown(made)
        name, description = check_texts(request, "template", self.settings)
        workflow_id, definition = request.get("workflow_id"), request.get("definition")
        if (workflow_id is None) == (definition is None):
            problem = Problem("workflow_id", "give either workflow_id or definition")
            raise ValidationFailed("template", [problem])
        parameters = request.get("parameters")
        if workflow_id is not None:
            _, known = await self.find_workflow(workflow_id)
            await self._check_parameters(parameters, known.definition, lambda: known.needed)
        else:
            # Nothing is made of a definition whose parameters are not good.
            definition = await self.checked(request["definition"])
            await self._check_parameters(
                parameters, definition, lambda: required_inputs(build_workflow(definition))
            )
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
        return _document(template_id, record, known)

    async def get_template(self, template_id: str) -> JsonObject:
        """The template with its tasks. Raises TemplateNotFound."""
        record, known = await self._find_template(template_id)
        return {**_document(template_id, record, known), "tasks": known.definition["tasks"]}

    async def list_templates(self, page: PageRequest) -> JsonObject:
        """One page of templates, without their parameters."""
        return await self.page_of_documents("template", _LIST, page, _summary)

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
        texts = {"name": record["name"], **request}
        name, description = check_texts(texts, "workflow", self.settings)
        values = await self.schemas.complete_input(
            request.get("parameter_values") or {},
            _parameters(record, known),
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
        record, known = await self._find_template(template_id)
        return _document(template_id, record, known)

    async def _find_template(self, template_id: str) -> tuple[dict[str, Any], KnownWorkflow]:
        stored = await answered(lambda: self.store.get_document("template", template_id))
        if stored is None:
            raise TemplateNotFound(template_id)
        record = jsontext.decode(stored.body)
        return record, await self.known(record["definition"])

    async def _check_parameters(
        self, raw: Any, definition: Mapping[str, Any], find_needed: Callable[[], Iterable[str]]
    ) -> None:
        """Hold parameters, if any are given, against a workflow's inputs.

        `find_needed` gives those that its references need. Raises ValidationFailed.
        """
        if raw is None:
            return
        most = self.settings.template_parameters_bytes_max
        if (size := len(jsontext.encode(raw))) > most:
            problem = Problem("parameters", f"take {size} bytes as JSON; at most {most} are kept")
            raise ValidationFailed("template", [problem])
        of_schema = await self.schemas.of_schema(raw)
        problems = [Problem(f"parameters{where}", text) for where, text in of_schema]
        schema = definition.get("input_schema")
        if not problems and schema is not None:
            needed = await apart(definition, find_needed)
            names = {*(as_json_schema(schema).get("properties") or {}), *needed}
            for name in as_json_schema(raw).get("properties") or {}:
                if name not in names:
                    hint = nearest(name, names) if len(problems) < _GUESSES_MAX else ""
                    text = f"the workflow has no such input{hint}"
                    problems.append(Problem(f"parameters.{name}", text))
                if len(problems) >= ValidationFailed.SHOWN_MAX:
                    break
        if problems:
            raise ValidationFailed("template", problems)


def _parameters(record: Mapping[str, Any], known: KnownWorkflow) -> Mapping[str, Any]:
    """The parameters; by default the workflow's inputs, which are not kept twice."""
    kept: Mapping[str, Any] | None = record["parameters"]
    if kept is not None:
        return kept
    schema: Mapping[str, Any] | None = known.definition.get("input_schema")
    return schema if schema is not None else {name: {"required": True} for name in known.needed}


def _document(template_id: str, record: Mapping[str, Any], known: KnownWorkflow) -> JsonObject:
    return {**_summary(template_id, record), "parameters": dict(_parameters(record, known))}


def _summary(template_id: str, record: Mapping[str, Any]) -> JsonObject:
    return {
        "template_id": template_id,
        "name": record["name"],
        "description": record["description"],
        "workflow_id": record["workflow_id"],
        "created_at": timestamp(record["created_ms"]),
        "updated_at": timestamp(record["updated_ms"]),
    }
