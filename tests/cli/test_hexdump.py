"""``logstore hexdump``: the annotated bytes, as lines and as JSON."""

from __future__ import annotations

import re
from pathlib import Path

from logstore.segments.batch import encode_batch
from logstore.segments.compression import Codec
from logstore.segments.record import Record
from tests.cli.program import GOLDEN, json_lines, run
from tests.segments.partitions import FIRST_INDEX, FIRST_LOG, on_disk, two_segments

TRANSACTIONS = GOLDEN / "partition-0" / "00000000000000000050.log"


def partition(tmp_path: Path) -> Path:
    return on_disk(two_segments(), tmp_path / "orders-0")


def test_a_batch_is_shown_byte_by_byte(tmp_path: Path) -> None:
    log = partition(tmp_path) / FIRST_LOG
    shown = run("hexdump", log, "--count", "1").stdout
    assert shown.startswith(f"{log}: ")
    assert re.search(r"^   0  00 00 00 00 00 00 00 64  .{8}  baseOffset +100$", shown, re.MULTILINE)
    assert re.search(r"^  17  .* crc +0x[0-9a-f]{8} +right$", shown, re.MULTILINE)
    assert re.search(r"\.\.\.\. \.\.\.\. \.\.\.\. \.000 +codec +0 +none$", shown, re.MULTILINE)
    assert "timestampDelta        1              2023-11-14T22:13:20.001Z" in shown
    assert 'value                 "value 101"' in shown
    digits = "".join(re.findall(r"^ *\d+  ((?:[0-9a-f]{2} ?)+) ", shown, re.MULTILINE))
    assert bytes.fromhex(digits) == log.read_bytes()[: len(digits.replace(" ", "")) // 2]


def test_an_offset_chooses_the_segment_and_the_batch(tmp_path: Path) -> None:
    directory = partition(tmp_path)
    for offset, first in ((103, 102), (108, 108), (111, 110)):
        lines = json_lines(run("hexdump --json", directory, "--offset", str(offset)))
        assert [line["value"] for line in lines if line["name"] == "baseOffset"] == [first]
    result = run("hexdump", directory, "--offset", "115", code=1)
    assert "no batch holds offset 115" in result.stderr


def test_a_position_chooses_the_batch_or_the_entry_around_it(tmp_path: Path) -> None:
    directory = partition(tmp_path)
    lines = json_lines(run("hexdump --json --position 70", directory / FIRST_LOG))
    assert (lines[0]["position"], lines[0]["value"]) == (0, 100)
    lines = json_lines(run("hexdump --json --position 9", directory / FIRST_INDEX))
    assert [line["position"] for line in lines] == [8, 12]
    assert {line["number"] for line in lines} == {1}
    result = run("hexdump --position 999999", directory / FIRST_LOG, code=1)
    assert "ends in front of byte 999999" in result.stderr


def test_compressed_records_are_folded_and_opened_when_asked(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    record = Record(timestamp=1, value=bytes(range(256)) * 4)
    log.write_bytes(encode_batch([record], codec=Codec.GZIP))
    folded = run("hexdump", log).stdout
    assert re.search(r"^ +\.\.\. [\d,]+ bytes$", folded, re.MULTILINE)
    assert "valueLength" not in folded
    opened = run("hexdump --records", log).stdout
    assert "valueLength           1024" in opened
    unfolded = run("hexdump --unfold --width 16", log).stdout
    assert not re.search(r"^ +\.\.\. [\d,]+ bytes$", unfolded, re.MULTILINE)
    lines = json_lines(run("hexdump --records --json", log))
    assert next(line["position"] for line in lines if line["decompressed"]) == 0


def test_what_is_damaged_is_told_and_is_the_exit_code(tmp_path: Path) -> None:
    data = bytearray(encode_batch([Record(timestamp=1, value=b"value")]))
    data[-2] ^= 1
    log = tmp_path / "a.log"
    log.write_bytes(data)
    assert "wrong: computed 0x" in run("hexdump", log, code=1).stdout
    log.write_bytes(data[:-3])
    assert re.search(
        r"^DAMAGE at byte \d+: the bytes end inside", run("hexdump", log, code=1).stdout, re.M
    )
    assert json_lines(run("hexdump --json", log, code=1))[-1]["type"] == "damage"


def test_long_fields_are_folded_once_and_the_number_left_out_is_right(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for size in (40, 47, 48, 49, 56, 57, 1000):
        log.write_bytes(encode_batch([Record(timestamp=1, value=b"\xff" * size)]))
        lines = run("hexdump", log).stdout.splitlines()
        shown = sum(line.count("ff ff ff ff ff ff ff ff") * 8 for line in lines if " ff " in line)
        folded = [line for line in lines if re.match(r" +\.\.\. [\d,]+ bytes$", line)]
        assert len(folded) == (size > 48)
        if folded:
            left_out = int(folded[0].split()[1].replace(",", ""))
            rest = size % 8 or 8
            assert left_out == size - 32 - rest
            assert shown >= 32
    log.write_bytes(b"\x01" * 3000)
    lines = run("hexdump", log, code=1).stdout.splitlines()
    assert len([line for line in lines if re.match(r" +\.\.\. [\d,]+ bytes$", line)]) == 1


def test_control_records_and_other_files_are_shown() -> None:
    shown = run("hexdump", TRANSACTIONS).stdout
    assert re.search(r"type +0 +abort$", shown, re.MULTILINE)
    assert "coordinatorEpoch" in shown
    for path in sorted(TRANSACTIONS.parent.iterdir()):
        if path.suffix != ".json":
            assert run("hexdump", path).stdout


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    directory = partition(tmp_path)
    for words in (
        ("hexdump", directory),
        ("hexdump", tmp_path / "orders-0" / "missing.log"),
        ("hexdump --offset 3 --position 4", directory / FIRST_LOG),
        ("hexdump --offset 3", directory / FIRST_INDEX),
        ("hexdump --width 0", directory / FIRST_LOG),
    ):
        result = run(*words, code=2)
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1


def test_the_example_in_the_help_works() -> None:
    words = "hexdump 00000000000000000000.log --offset 1017 --records"
    assert words in run("hexdump --help").stdout
    log = GOLDEN / "v2-zstd-0" / "00000000000000002000.log"
    shown = run("hexdump", log, "--offset", "2004", "--records").stdout
    assert "offset 2004" in shown
