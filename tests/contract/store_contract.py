"""The store's contract as tests: each store's test module subclasses `StoreContract`.

One test per sentence of `persistence/store.py` that can be proved. `store` is a fixture that the
subclass gives; nothing here knows which implementation runs.
"""

from __future__ import annotations

from tests.contract.commit_contract import CommitContract, InboxContract
from tests.contract.document_contract import DocumentContract, PageContract
from tests.contract.execution_contract import ClaimContract, CreateContract, ReadContract
from tests.contract.log_contract import LogContract
from tests.contract.own_checkpoint_contract import OwnCheckpointContract
from tests.contract.owner_contract import (
    CheckpointContract,
    OwnerContract,
    SuspectContract,
)
from tests.contract.retention_contract import (
    AdmissionContract,
    ExpiryContract,
    GarbageContract,
    HoldingContract,
)
from tests.contract.server_contract import ServerContract, TokenContract


class StoreContract(
    ServerContract,
    DocumentContract,
    PageContract,
    CreateContract,
    ClaimContract,
    CommitContract,
    ReadContract,
    InboxContract,
    OwnerContract,
    SuspectContract,
    CheckpointContract,
    OwnCheckpointContract,
    TokenContract,
    ExpiryContract,
    HoldingContract,
    GarbageContract,
    AdmissionContract,
    LogContract,
):
    """All of it: a test module subclasses this and gives the fixtures `store` and `small_log`.

    `small_log` is a store whose log keeps ten entries.
    """
