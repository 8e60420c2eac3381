"""The contract of documents, definitions and lists."""

from __future__ import annotations

import pytest

from persistence.errors import (
    AlreadyExists,
    DefinitionMissing,
    Missing,
    VersionConflict,
)
from persistence.store import (
    IndexEntry,
    Page,
    Store,
)
from tests.contract.builders import (
    ALL_BYTES,
    ODD_NAMES,
    create,
    ids,
)


class DocumentContract:
    async def test_a_definition_is_kept_as_it_was_first_put(self, store: Store):
        assert await store.get_definition("digest") is None
        await store.put_definition("digest", ALL_BYTES)
        await store.put_definition("digest", b"another")
        assert await store.get_definition("digest") == ALL_BYTES

    async def test_a_document_counts_its_versions(self, store: Store):
        assert await store.get_document("workflow", "w") is None
        assert await store.put_document("workflow", "w", b"1") == 1
        assert await store.put_document("workflow", "w", ALL_BYTES) == 2
        document = await store.get_document("workflow", "w")
        assert document is not None
        assert (document.document_id, document.body, document.version) == ("w", ALL_BYTES, 2)

    async def test_expecting_version_0_creates_once(self, store: Store):
        assert await store.put_document("workflow", "w", b"1", expected_version=0) == 1
        assert await store.put_document("workflow", "w", b"1", expected_version=0) == 1
        with pytest.raises(AlreadyExists):
            await store.put_document("workflow", "w", b"2", expected_version=0)
        document = await store.get_document("workflow", "w")
        assert document is not None
        assert document.body == b"1"

    async def test_expecting_a_version_writes_only_over_that_one(self, store: Store):
        with pytest.raises(Missing):
            await store.put_document("workflow", "w", b"1", expected_version=1)
        await store.put_document("workflow", "w", b"1")
        assert await store.put_document("workflow", "w", b"2", expected_version=1) == 2
        with pytest.raises(VersionConflict):
            await store.put_document("workflow", "w", b"other", expected_version=1)
        with pytest.raises(VersionConflict):
            await store.put_document("workflow", "w", b"2", expected_version=7)

    async def test_a_conditional_put_whose_reply_was_lost_is_recognised(self, store: Store):
        await store.put_document("workflow", "w", b"1")
        assert await store.put_document("workflow", "w", b"2", expected_version=1) == 2
        assert await store.put_document("workflow", "w", b"2", expected_version=1) == 2

    async def test_several_documents_come_in_the_order_asked(self, store: Store):
        await store.put_document("workflow", "a", b"1")
        await store.put_document("workflow", "b", b"2")
        found = await store.get_documents("workflow", ["b", "none", "a", "b"])
        assert [one and one.body for one in found] == [b"2", None, b"1", b"2"]
        assert await store.get_documents("workflow", []) == []

    async def test_deleting_takes_a_document_and_its_index_entries(self, store: Store):
        await store.put_document("workflow", "w", b"1", [IndexEntry("all", 1)])
        assert await store.delete_document("workflow", "w") is True
        assert await store.delete_document("workflow", "w") is False
        assert await store.get_document("workflow", "w") is None
        assert await ids(store, "all") == ()

    async def test_a_put_replaces_the_former_index_entries(self, store: Store):
        await store.put_document("workflow", "w", b"1", [IndexEntry("a", 1), IndexEntry("b", 1)])
        await store.put_document("workflow", "v", b"1", [IndexEntry("b", 2)])
        await store.put_document("workflow", "w", b"1", [IndexEntry("b", 3), IndexEntry("c", 1)])
        assert await ids(store, "a") == ()
        assert await ids(store, "b") == ("v", "w")
        assert await ids(store, "c") == ("w",)

    async def test_a_refused_put_changes_nothing(self, store: Store):
        await store.put_definition("digest", b"definition")
        await store.put_document("workflow", "w", b"1", [IndexEntry("a", 1)], definition="digest")
        with pytest.raises(DefinitionMissing):
            await store.put_document("workflow", "w", b"2", [], definition="none")
        with pytest.raises(VersionConflict):
            await store.put_document("workflow", "w", b"2", [], expected_version=9)
        document = await store.get_document("workflow", "w")
        assert document is not None
        assert (document.body, document.version) == (b"1", 1)
        assert await ids(store, "a") == ("w",)
        assert await store.get_definition("digest") == b"definition"

    async def test_a_definition_goes_with_the_last_document(self, store: Store):
        await store.put_definition("digest", b"definition")
        await store.put_document("workflow", "a", b"1", definition="digest")
        await store.put_document("template", "a", b"1", definition="digest")
        await store.put_document("template", "a", b"2", definition="digest")
        await store.delete_document("workflow", "a")
        assert await store.get_definition("digest") == b"definition"
        await store.delete_document("template", "a")
        assert await store.get_definition("digest") is None

    async def test_a_definition_goes_when_its_document_refers_to_another(self, store: Store):
        await store.put_definition("one", b"1")
        await store.put_definition("two", b"2")
        await store.put_document("workflow", "w", b"", definition="one")
        await store.put_document("workflow", "w", b"", definition="two")
        assert await store.get_definition("one") is None
        await store.put_document("workflow", "w", b"")
        assert await store.get_definition("two") is None

    async def test_an_execution_holds_its_definition(self, store: Store):
        await store.put_definition("digest", b"definition")
        await store.put_document("workflow", "w", b"", definition="digest")
        await create(store)
        await store.delete_document("workflow", "w")
        assert await store.get_definition("digest") == b"definition"

    async def test_odd_ids_and_kinds_do_not_meet(self, store: Store):
        names = [(kind, one) for kind in ODD_NAMES[:8] for one in ODD_NAMES]
        for kind, one in names:
            body = f"{kind}|{one}".encode()
            await store.put_document(kind, one, body, [IndexEntry(kind, 0, one)])
        for kind, one in names:
            document = await store.get_document(kind, one)
            assert document is not None
            assert document.document_id == one
            assert document.body == f"{kind}|{one}".encode()
            assert document.version == 1
        for kind in ODD_NAMES[:8]:
            assert await ids(store, kind) == tuple(sorted(ODD_NAMES, key=str.encode))


class PageContract:
    async def test_a_list_is_in_order_of_score_then_text_then_id(self, store: Store):
        places = {
            "d": (2.0, "a"),
            "c": (1.0, "b"),
            "b": (1.0, "a"),
            "a": (1.0, "a"),
            "e": (-1.5, "z"),
            "f": (1.0, "a\x00"),
            "g": (1.0, "a\x01"),
            "h": (1.0, ""),
        }
        for one, (score, text) in places.items():
            await store.put_document("k", one, b"", [IndexEntry("list", score, text)])
        expected = ("e", "h", "a", "b", "f", "g", "c", "d")
        assert await ids(store, "list") == expected
        assert await ids(store, "list", descending=True) == expected[::-1]

    async def test_pages_tile_a_list_in_both_orders(self, store: Store):
        names = [f"{at:02}" for at in range(11)]
        for name in names:
            await store.put_document("k", name, b"", [IndexEntry("list", int(name) // 3)])
        for descending in (False, True):
            found: list[str] = []
            for offset in range(0, 15, 4):
                page = await store.page("list", offset=offset, limit=4, descending=descending)
                assert page.total == 11
                found.extend(page.ids)
            assert found == (names[::-1] if descending else names)

    async def test_a_list_that_was_never_written_is_empty(self, store: Store):
        page = await store.page("none", offset=0, limit=10, descending=True)
        assert page == Page((), 0)

    @pytest.mark.parametrize(("offset", "limit"), [(-1, 10), (0, 0), (0, -1)])
    async def test_an_impossible_page_is_refused(self, store: Store, offset: int, limit: int):
        with pytest.raises(ValueError, match=r"offset|limit"):
            await store.page("list", offset=offset, limit=limit, descending=False)

    async def test_scores_keep_milliseconds_apart(self, store: Store):
        for at in (3, 1, 2):
            await store.put_document("k", str(at), b"", [IndexEntry("t", 1_795_000_000_000 + at)])
        assert await ids(store, "t") == ("1", "2", "3")

    @pytest.mark.parametrize("score", [float("nan"), float("inf")])
    async def test_a_score_that_cannot_be_ordered_is_refused(self, store: Store, score: float):
        with pytest.raises(ValueError, match="finite"):
            await store.put_document("k", "a", b"", [IndexEntry("list", score)])
        assert await store.get_document("k", "a") is None

    async def test_a_list_named_twice_is_refused(self, store: Store):
        with pytest.raises(ValueError, match="twice"):
            await store.put_document("k", "a", b"", [IndexEntry("l", 1), IndexEntry("l", 2)])
