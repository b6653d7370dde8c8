"""The map of keys that compaction goes by: what it knows of keys, and of where they lie."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.key_map import KeyMap

KEYS = (
    st.none() | st.sampled_from([b"a", b"b", b"c", b"d" * 40, b"e" * 40]) | st.binary(max_size=40)
)
BATCHES = st.lists(
    st.tuples(st.integers(1, 5), st.lists(KEYS, min_size=1, max_size=8)), min_size=1, max_size=30
)


def test_it_is_bounded_and_knows_long_keys() -> None:
    keys = KeyMap(1024, first_offset=0, last_offset=0)
    assert keys.capacity == (1024 - 1) // 176
    for number in range(keys.capacity):
        assert keys.put(b"k" * 100 + b"%d" % number, 0)
    assert not keys.put(b"one more", 0)
    assert keys.put(b"k" * 100 + b"0", 0)
    assert keys.end_offset == 1
    assert keys.last_offsets([b"k" * 100 + b"0", b"one more", None]) == [0, None, None]
    assert len(keys) == keys.capacity


@given(BATCHES, st.sampled_from([200, 1000, 3000, 1 << 20]))
@settings(max_examples=200, deadline=None)
def test_it_knows_the_last_offset_of_each_key_and_where_others_were(
    gaps_and_keys: list[tuple[int, list[bytes | None]]], memory_bytes: int
) -> None:
    batches: list[tuple[list[int], list[bytes | None]]] = []
    end = first = 1000
    for gap, batch in gaps_and_keys:
        batches.append((list(range(end + gap, end + gap + len(batch))), batch))
        end += gap + len(batch)
    keys = KeyMap(memory_bytes, first_offset=first, last_offset=end - 1)
    last: dict[bytes, int] = {}
    superseded: set[int] = set()
    room = True
    for offsets, batch in batches:
        room = keys.put_all(batch, offsets)
        for offset, key in zip(offsets, batch, strict=True):
            if key is not None and offset < keys.end_offset:
                superseded |= {last[key]} if key in last else set()
                last[key] = offset
        if not room:
            break
    assert room or len(last) == keys.capacity
    assert len(keys) == len(last) <= keys.capacity
    assert keys.last_offsets(list(last)) == list(last.values())
    for offsets, _ in batches:
        if keys.all_stay(offsets[0], offsets[-1]):
            assert superseded.isdisjoint(offsets)
            assert offsets[-1] < keys.end_offset
        elif memory_bytes == 1 << 20 and offsets[-1] < keys.end_offset:
            assert not superseded.isdisjoint(offsets)
        exactly = keys.superseded(offsets[0], offsets[-1])
        if exactly is not None:
            assert {o for o, gone in zip(offsets, exactly, strict=True) if gone} == (
                superseded & set(offsets)
            )
    assert not keys.all_stay(first - 1, first)
    assert keys.superseded(first - 1, first) is None


def test_a_look_can_be_asked_for() -> None:
    keys = KeyMap(1 << 20, first_offset=10, last_offset=19)
    assert keys.put_all([b"a", b"b"], [10, 19])
    assert keys.all_stay(10, 19)
    keys.mark(5, 12)
    assert not keys.all_stay(10, 11)
    assert keys.all_stay(13, 19)
    keys.mark(18, 19)
    assert not keys.all_stay(13, 19)
    assert keys.all_stay(13, 17)
    assert keys.superseded(13, 17) == bytearray(5)
    assert keys.superseded(13, 18) is None
