"""Every key that Harmonia keeps in Redis: its name, why it is there and how long it lives.

A name is the namespace, a fixed word per kind of key, then whatever id it is about, always last:
so no id, whatever characters it has, can reach into another kind. The scripts take the names from
here too (`lua_constants`). This module must not know what the bytes under a key mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["KINDS", "KeyKind", "Keys", "document_suffix", "index_member", "member_id"]

_NAMESPACE = re.compile(r"[a-z][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class KeyKind:
    """One kind of key: the constant that scripts know it by, its word, its reason, its lifetime."""

    constant: str
    word: str
    holds: str
    lifetime: str


KINDS: tuple[KeyKind, ...] = (
    KeyKind(
        "EXECUTION",
        "execution",
        "hash: v version, e epoch, s seq, o owner, d definition, f first owner, n number in order "
        "of creation, x index entries, h executions whose outputs it holds, c crashes in a row, C "
        "crashes lately, t time of the last one, z set once it has ended; fields as '.' and their "
        "name",
        "until it expires, the retention after its end",
    ),
    KeyKind("ROWS", "rows", "hash: an execution's rows by name", "as long as the execution"),
    KeyKind(
        "OUTPUTS",
        "outputs",
        "hash: outputs by key, each written once; apart from the rows, so that reading a status "
        "does not read them, and because they may outlive the execution",
        "as long as the execution, or longer if HELD",
    ),
    KeyKind(
        "CONSTANTS",
        "constants",
        "hash: fields that no commit replaces, as '.' and their name; apart from the others, "
        "because they may be large, and checkpoints share them",
        "as long as the execution, or longer if HELD",
    ),
    KeyKind("EVENTS", "events", "stream: event <seq>-0", "as long as the execution"),
    KeyKind(
        "LOG",
        "log",
        "stream: which events each commit has appended, in the order of commits: x execution, f "
        "the first seq, n how many; the entry's id is its time in ms and its number",
        "for ever; the newest entries, up to a setting",
    ),
    KeyKind("INBOX", "inbox", "stream: unread inbox entries", "as long as the execution"),
    KeyKind(
        "SEEN",
        "seen",
        "hash: inbox entry id to its stream id, or '' once acknowledged: what makes appending "
        "idempotent",
        "as long as the execution; an entry until 1,000 others were acknowledged after it",
    ),
    KeyKind(
        "ACKNOWLEDGED",
        "acknowledged",
        "list: ids of acknowledged inbox entries that SEEN still knows, oldest first",
        "as long as the execution",
    ),
    KeyKind(
        "HELD",
        "held",
        "hash: execution id to how many checkpoints and other executions hold its outputs, "
        "constants and files, besides itself",
        "as long as it has fields",
    ),
    KeyKind(
        "ENDED",
        "ended",
        "sorted set: executions that have ended, by when, in ms: the oldest expire first",
        "as long as there are any",
    ),
    KeyKind(
        "GARBAGE",
        "garbage",
        "sorted set: executions whose outputs nobody holds any more, by when that was found, in "
        "ms, until their blobs and files are gone too",
        "as long as there are any",
    ),
    KeyKind(
        "LIVE",
        "live",
        "counter: executions that have not ended, against which new ones are admitted",
        "for ever",
    ),
    KeyKind("EXPIRED", "expired", "counter: executions that have expired", "for ever"),
    KeyKind(
        "INSTALLATION",
        "installation",
        "string: twelve random hexadecimal digits by which blobs and directories are known as "
        "this installation's",
        "for ever",
    ),
    KeyKind(
        "CHECKPOINT",
        "checkpoint",
        "hash: copy of EXECUTION, with that execution as the last in h, and in a if its owner "
        "took the checkpoint by itself",
        "as long as its document",
    ),
    KeyKind("CHECKPOINT_ROWS", "checkpoint-rows", "hash: copy of ROWS", "as long as its document"),
    KeyKind(
        "OWN_CHECKPOINTS",
        "own-checkpoints",
        "sorted set: checkpoints that an execution's owners took by themselves, by number: the "
        "oldest go first",
        "as long as there are any, and no longer than the execution",
    ),
    KeyKind(
        "DOCUMENT",
        "document",
        "hash: b body, v version, d definition, x index entries; the id is the kind's length, the "
        "kind and the document's id",
        "until deleted",
    ),
    KeyKind(
        "DEFINITION",
        "definition",
        "hash: b body, n how many documents, executions and checkpoints refer to it",
        "until the last reference goes; a day if there never was one",
    ),
    KeyKind(
        "INDEX",
        "index",
        "sorted set: a list, members text NUL id (so that equal scores are in order of text)",
        "as long as it has members",
    ),
    KeyKind("OWNERS", "owners", "sorted set: owners by how many executions they have", "for ever"),
    KeyKind(
        "LEASES",
        "leases",
        "sorted set: owners by the time their lease runs out, in ms; 0 for one that is being "
        "emptied, 1 for one that never registered",
        "for ever",
    ),
    KeyKind(
        "OWNED",
        "owned",
        "sorted set: an owner's executions by number, to give them on when it dies",
        "as long as it has executions",
    ),
    KeyKind(
        "MAIL",
        "mail",
        "sorted set: those of an owner's executions that have unread inbox entries, by the time "
        "they were first seen to",
        "as long as there is mail",
    ),
    KeyKind(
        "WAITING",
        "waiting",
        "sorted set: executions without an owner, by number",
        "as long as there are any",
    ),
    KeyKind(
        "SUSPECTS",
        "suspects",
        "sorted set: executions without an owner that were there when their last one died, by "
        "number",
        "as long as there are any",
    ),
    KeyKind(
        "ASIDE",
        "aside",
        "sorted set: executions without an owner that none there can read, by number",
        "until another owner comes",
    ),
    KeyKind(
        "ISOLATED",
        "isolated",
        "hash: an owner to the suspect that it has alone",
        "as long as there are any",
    ),
    KeyKind("CREATED", "created", "counter: executions created, gives the number", "for ever"),
    KeyKind(
        "RATE",
        "rate",
        "string: when a token bucket will be full again, in microseconds",
        "until the bucket is full",
    ),
    KeyKind("PING", "ping", "string: written to see whether writes are taken", "a minute"),
)


class Keys:
    """The key names of one namespace."""

    def __init__(self, namespace: str) -> None:
        """`namespace`: lower-case letters, digits and hyphens, a letter first."""
        if not _NAMESPACE.fullmatch(namespace):
            raise ValueError(
                f"namespace: {namespace!r} cannot prefix keys; use lower-case letters, digits and "
                "hyphens, a letter first, at most 64 characters"
            )
        self.namespace = namespace
        self._prefix = {
            kind.constant: f"{namespace}:{kind.word}".encode()
            if kind.constant in _SINGLE
            else f"{namespace}:{kind.word}:".encode()
            for kind in KINDS
        }

    def of(self, constant: str, suffix: str = "") -> bytes:
        """The name of a key of one kind; `suffix` is the id it is about."""
        return self._prefix[constant] + suffix.encode()

    def lua_constants(self, source: str) -> str:
        """Declarations of those names (or their beginnings) that a script's source mentions."""
        words = set(re.findall(r"\b[A-Z][A-Z_]+\b", source))
        return "".join(
            f"local {constant} = '{prefix.decode()}'\n"
            for constant, prefix in self._prefix.items()
            if constant in words
        )


#: Kinds with one key only: the name is whole, no id follows.
_SINGLE = frozenset(
    {"OWNERS", "LEASES", "WAITING", "SUSPECTS", "ASIDE", "ISOLATED", "CREATED", "PING"}
    | {"LOG", "HELD", "ENDED", "GARBAGE", "LIVE", "EXPIRED", "INSTALLATION"}
)


def document_suffix(kind: str, document_id: str) -> str:
    """The id part of a document's key; the length keeps kinds apart whatever they are called."""
    return f"{len(kind)}:{kind}:{document_id}"


def index_member(text: str, entry_id: str) -> bytes:
    """A sorted set's member: ordered by text, then by id.

    NUL parts the two, so NUL within the text is written as another character pair that keeps the
    order: NUL as 01 01, and 01 as 01 02.
    """
    escaped = text.encode().replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01")
    return escaped + b"\x00" + entry_id.encode()


def member_id(member: bytes) -> str:
    """The id within a member that `index_member` made."""
    return member.partition(b"\x00")[2].decode()
