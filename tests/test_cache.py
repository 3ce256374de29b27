"""The block cache: what goes in comes out, damaged files count as missing, sizes are kept."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from terraloom.world.cache import BlockCache, cache_folder, sweep

KEY = (8, 1, 2)


def block(value: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(value).integers(0, 256, (3, side, side), np.uint8)


def the_file(folder: Path) -> Path:
    return next(folder.glob("*/*/*.block"))


def test_memory_and_disk_give_back_what_they_got(tmp_path: Path) -> None:
    first = BlockCache(tmp_path, "w")
    assert first.get(KEY) is None
    first.put(KEY, block(0))
    assert np.array_equal(first.get(KEY), block(0))
    again = BlockCache(tmp_path, "w").get(KEY)
    assert again is not None
    assert np.array_equal(again, block(0))
    assert BlockCache(tmp_path, "another world").get(KEY) is None
    assert the_file(tmp_path) == tmp_path / "w" / "8" / "1-2.block"


def test_blocks_cannot_be_written_to(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, "w")
    cache.put(KEY, block(0))
    for found in (cache.get(KEY), BlockCache(tmp_path, "w").get(KEY)):
        assert found is not None
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0, 0] = 1


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "garbage", "longer"])
def test_a_damaged_file_counts_as_missing(tmp_path: Path, damage: str) -> None:
    BlockCache(tmp_path, "w").put(KEY, block(0))
    path = the_file(tmp_path)
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[50] ^= 4
    path.write_bytes(
        {
            "empty": b"",
            "short": data[:-1],
            "flipped": bytes(flipped),
            "garbage": os.urandom(len(data)),
            "longer": data + b"x",
        }[damage]
    )
    cache = BlockCache(tmp_path, "w")
    assert cache.get(KEY) is None
    cache.put(KEY, block(0))
    assert np.array_equal(BlockCache(tmp_path, "w").get(KEY), block(0))


def test_memory_forgets_the_least_recent(tmp_path: Path) -> None:
    cache = BlockCache(None, "w", memory_bytes=3 * block(0).nbytes)
    for i in range(3):
        cache.put((8, i, 0), block(i))
    cache.get((8, 0, 0))
    cache.put((8, 3, 0), block(3))
    kept = [i for i in range(4) if cache.get((8, i, 0)) is not None]
    assert kept == [0, 2, 3]


def test_disk_stays_below_its_limit(tmp_path: Path) -> None:
    limit = 20 * block(0).nbytes
    cache = BlockCache(tmp_path, "w", disk_bytes=limit)
    for i in range(60):
        cache.put((8, i, 0), block(i))
    held = sum(p.stat().st_size for p in tmp_path.glob("*/*/*"))
    assert 0.8 * limit < held < 1.2 * limit


def test_the_least_recently_used_files_go_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, "w")
    for i in range(4):
        cache.put((8, i, 0), block(i))
        os.utime(tmp_path / "w" / "8" / f"{i}-0.block", (1000 + i, 1000 + i))
    BlockCache(tmp_path, "w").get((8, 0, 0))  # used now
    sweep(tmp_path, 2 * (tmp_path / "w" / "8" / "0-0.block").stat().st_size)
    assert sorted(p.name for p in tmp_path.glob("*/*/*")) == ["0-0.block", "3-0.block"]


def test_leftovers_of_dead_processes_go(tmp_path: Path) -> None:
    folder = tmp_path / "w" / "8"
    folder.mkdir(parents=True)
    old, new = folder / ".0-0.block.1.1.part", folder / ".1-0.block.1.1.part"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    sweep(tmp_path, 1 << 20)
    assert [p.name for p in folder.iterdir()] == [new.name]


def test_an_unwritable_folder_costs_a_warning_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = BlockCache(tmp_path / "file", "w")
    with pytest.warns(UserWarning, match="no longer kept"):
        cache.put(KEY, block(0))
    cache.put((8, 2, 2), block(1))
    assert np.array_equal(cache.get(KEY), block(0))


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        BlockCache(tmp_path, "w").put(KEY, block(0))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_threads_share_a_cache(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, "w", memory_bytes=5 * block(0).nbytes)
    wrong: list[int] = []

    def work(first: int) -> None:
        for i in range(first, first + 30):
            cache.put((8, i % 10, 0), block(i % 10))
            found = cache.get((8, i % 10, 0))
            if found is None or not np.array_equal(found, block(i % 10)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRALOOM_CACHE", str(tmp_path / "env"))
    assert cache_folder(False) is None
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder(None) == tmp_path / "env"
    monkeypatch.delenv("TERRALOOM_CACHE")
    default = cache_folder(None)
    assert default is not None
    assert "terraloom" in str(default)
