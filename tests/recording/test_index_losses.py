"""An index that is ahead of the recording, or damaged, says nothing that nobody recorded."""

from __future__ import annotations

from pathlib import Path

from capd.recording.index_segments import open_whole
from tests.recording.test_index import Conversation, fill_segments, message, take


def test_what_nothing_sealed_holds_can_be_removed(tmp_path: Path, conversation: Conversation) -> None:
    """After a power cut an index may have what the recording lost: newest sessions and messages go, words and all."""
    fill_segments(tmp_path / "segments", conversation, 2)
    with open_whole(tmp_path / "capd.db", tmp_path / "segments") as index:
        kept, lost = {row.session for row in index.sessions()}, conversation(99)
        before = {session: index.session(session).messages for session in kept}
        take(index, lost)
        ahead = message(next(iter(kept)), 50, "zebra")
        index.upsert_messages([ahead])
        assert lost[0].session in {row.session for row in index.sessions()}
    with open_whole(tmp_path / "capd.db", tmp_path / "segments") as index:
        index.remove_messages(ahead.session, 50)
        assert before == {row.session: row.messages for row in index.sessions()}
        assert not index.search("zebra")
        assert kept == {hit.session for hit in index.search("message")}


def test_a_damaged_index_whose_words_are_no_text_is_made_anew(tmp_path: Path, conversation: Conversation) -> None:
    """SQLite quotes what it finds in a damaged file, which need be no UTF-8: that too is a damaged index, and no more."""
    path = tmp_path / "capd.db"
    fill_segments(tmp_path / "segments", conversation, 2)
    open_whole(path, tmp_path / "segments").close()
    before = path.read_bytes()
    for old, new in ((b"CREATE TABLE", b"CREATE\xdfTABLE"), (b"messages_fts", b"mess\xdfges_fts")):
        path.write_bytes(before.replace(old, new))
        with open_whole(path, tmp_path / "segments") as index:
            assert 2 == len(index.sessions())
