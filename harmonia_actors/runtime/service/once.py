"""Requests that carry an idempotency key: what they make, and whether they have made it before.

Nothing is kept of a key apart from what was made with it. A document gets an id that follows from
the caller and the key, so that all who send a request, at whatever time and through whatever
replica, mean the same one, and the store's own rule (one document to an id) decides between them.
An execution gets an id that was never used, because much is kept under it for a while after it is
gone: outputs, files, what task actors remember. It stands alone in a list whose name follows from
the key, and the store's rule for such lists decides. Both carry the fingerprint of their request,
and the key is free again once they are gone.

Sends with the same key to operations that make things of different kinds are told apart by looking
for all kinds first. Only if they are under way in the same instant can both succeed.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import Conflict
from harmonia_actors.core.requests import Once
from harmonia_actors.runtime.derived_ids import derived_uuid
from harmonia_actors.runtime.indexing import once_index
from persistence.store import Page, Store

__all__ = ["Creation", "creation_of", "find_made"]

#: Changing it makes every key mean something new.
_DOMAIN: Final = "harmonia idempotency key 1"
#: The fingerprint's name in a document's record and among an execution's fields.
_REQUEST: Final = "request"
#: Kinds of documents that a request may make, with the prefixes of their ids.
_DOCUMENTS: Final = (("workflow", "wf"), ("template", "tmpl"), ("checkpoint", "cp"))


@dataclass(frozen=True, slots=True)
class Creation:
    """A request that makes something: what it gives to that as id, as list and as fingerprint.

    Without a key, `once` is None, ids are random, and there is neither list nor fingerprint.
    """

    uuid: uuid.UUID
    once: Once | None = None
    fingerprint: str | None = None
    #: The list in which an execution made by it is the only one.
    index: str = ""

    def id(self, prefix: str) -> str:
        """The id of a document that is made, like `wf-123e4567-e89b-12d3-a456-426614174000`."""
        return f"{prefix}-{self.uuid}"

    def record_fields(self) -> dict[str, str]:
        """What is stored in a document's record, so that it can be told what made it."""
        return {} if self.fingerprint is None else {_REQUEST: self.fingerprint}

    def execution_fields(self) -> dict[str, bytes]:
        """The same for an execution."""
        return {} if self.fingerprint is None else {_REQUEST: self.fingerprint.encode()}

    def check(self, fingerprint: str | None, made: str) -> None:
        """Raise Conflict unless `made`, found under the key, is of this very request."""
        if self.once is None or fingerprint == self.fingerprint:
            return
        raise Conflict(
            f"the Idempotency-Key '{self.once.key}' was sent before with another request, which "
            f"made {made}; send that request unchanged, or this one with a new key",
            {"idempotency_key": self.once.key, "made": made},
        )


def creation_of(once: Once | None, operation: str, *request: Any) -> Creation:
    """What a request makes; `request` is all that the client said, as JSON."""
    if once is None:
        return Creation(uuid.uuid4())
    key = hashlib.sha256(jsontext.encode_canonical([_DOMAIN, once.caller, once.key]))
    said = hashlib.sha256(jsontext.encode_canonical([operation, *request]))
    return Creation(
        uuid=derived_uuid(key.digest()),
        once=once,
        fingerprint=said.hexdigest(),
        index=once_index(key.hexdigest()[:32]),
    )


async def find_made(store: Store, creation: Creation) -> Mapping[str, str]:
    """What this request has made already: ids by kind. Raises Conflict if another one used its key.

    Kinds are those of documents, and `execution`.
    """
    if creation.once is None:
        return {}
    documents, page = await asyncio.gather(
        asyncio.gather(*(store.get_document(kind, creation.id(p)) for kind, p in _DOCUMENTS)),
        store.page(creation.index, offset=0, limit=1, descending=False),
    )
    found = {}
    for (kind, _), document in zip(_DOCUMENTS, documents, strict=True):
        if document is not None:
            record = jsontext.decode(document.body)
            creation.check(record.get(_REQUEST), document.document_id)
            found[kind] = document.document_id
    execution_id = await _find_execution(store, creation, page)
    return {**found, "execution": execution_id} if execution_id else found


async def _find_execution(store: Store, creation: Creation, page: Page) -> str:
    """The execution in the request's list, or "". Raises Conflict."""
    for execution_id in page.ids:
        (fields,) = await store.read_executions([execution_id], [_REQUEST])
        if fields is not None:
            creation.check(fields.get(_REQUEST, b"").decode(), execution_id)
            return execution_id
    return ""
