"""World: one planet, whatever the order, process, cache, window or block size in which it is asked for."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window as RasterWindow

from terraloom.data.ground import Ground
from terraloom.errors import BadCheckpoint, InvalidInput
from terraloom.grid import TILE, Window, bbox_of, coarsest_gsd, level_size
from terraloom.weights import load_model, save_model
from terraloom.world import World, WorldSpec
from terraloom.world import engine as engines
from terraloom.world.blocks import reduce2

BLOCK = 256
OPEN_GROUND = Ground.open  # the real one
NewWorld = Callable[..., World]


@pytest.fixture(scope="module")
def new_world(tiny_checkpoint: Path, tiny_base: Path) -> Any:
    """Makes worlds of the tiny network and base map; the shipped ground is read once."""
    import torch

    ground, threads = Ground.open(), torch.get_num_threads()
    torch.set_num_threads(1)

    def make(seed: int = 7, **options: Any) -> World:
        defaults = {"model": tiny_checkpoint, "base": tiny_base, "cache": False}
        return World(seed, **{**defaults, "engine": "torch", "block": BLOCK, "halo": 96, **options})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ground, "open", lambda cover: ground)
        yield make
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def second(new_world: NewWorld) -> World:
    """The same world, with memories of its own."""
    return new_world()


def middle(level: int) -> tuple[int, int]:
    """A corner of tiles at about 31 E 30 N; also a corner of blocks of 256, 512 .. px."""
    tiles = 2**level
    x, y = int(tiles * 0.586), int(tiles * 0.413)
    return (x // 4 * 4, y // 4 * 4) if level > 4 else (x, y)


# ------------------------------------------------------------------ the same pixels, however they are asked for


@pytest.mark.parametrize("level", range(4, 19))
def test_neighbours_in_any_order_are_cut_from_one_image(
    world: World, second: World, level: int
) -> None:
    x, y = middle(level)
    together = world.level(level, TILE * x, TILE * y, 2 * TILE, 2 * TILE)
    assert together.std() > 10
    for column, row in ((x + 1, y + 1), (x, y + 1), (x + 1, y), (x, y)):
        left, top = TILE * (column - x), TILE * (row - y)
        expected = together[:, top : top + TILE, left : left + TILE]
        assert np.array_equal(second.tile(level, column, row), expected)


@pytest.mark.parametrize("level", [9, 14])
def test_a_tile_alone_is_the_same(world: World, new_world: NewWorld, level: int) -> None:
    x, y = middle(level)
    assert np.array_equal(new_world().tile(level, x + 1, y), world.tile(level, x + 1, y))


@pytest.mark.parametrize("level", [8, 10, 12])
def test_windows_across_block_borders(world: World, second: World, level: int) -> None:
    x, y = (TILE * tile for tile in middle(level))
    across = second.level(level, x - 100, y - 50, 200, 100)
    parts = [world.level(level, x - 100, y - 50, 100, 100), world.level(level, x, y - 50, 100, 100)]
    assert np.array_equal(across, np.concatenate(parts, 2))


DIGEST = """
import hashlib, sys, torch
torch.set_num_threads(1)
from terraloom.world import World
model, base, cache = sys.argv[1:]
world = World(7, model=model, base=base, cache=cache, engine="torch", block=256, halo=96)
for z, x, y in ((9, 300, 211), (14, 9600, 6767)):
    print(world.id, hashlib.sha256(world.tile(z, x, y)).hexdigest())
"""


def test_another_process_draws_the_same(
    world: World, tiny_checkpoint: Path, tiny_base: Path, tmp_path: Path
) -> None:
    expected = [
        f"{world.id} {hashlib.sha256(world.tile(*tile)).hexdigest()}"
        for tile in ((9, 300, 211), (14, 9600, 6767))
    ]
    for _ in ("into an empty cache", "from a full one"):
        command = [
            sys.executable,
            "-c",
            DIGEST,
            str(tiny_checkpoint),
            str(tiny_base),
            str(tmp_path),
        ]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        assert found.stdout.split("\n")[:2] == expected


def test_a_full_cache_needs_no_engine(
    world: World, new_world: NewWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = middle(12)
    first = new_world(cache=tmp_path).tile(12, x, y)
    assert np.array_equal(first, world.tile(12, x, y))
    monkeypatch.setattr(engines, "start", lambda *_: pytest.fail("the cache was not used"))
    assert np.array_equal(new_world(cache=tmp_path).tile(12, x, y), first)


@pytest.mark.parametrize("damage", [b"", b"TLB1 and then nonsense"])
def test_damaged_cache_files_are_drawn_again(
    world: World, new_world: NewWorld, tmp_path: Path, damage: bytes
) -> None:
    x, y = middle(10)
    new_world(cache=tmp_path).tile(10, x, y)
    files = list(tmp_path.glob("*/*/*.block"))
    assert {path.parent.name for path in files} == {"6", "8", "10"}
    shared = {path.parent.parent.name for path in files if path.parent.name == "6"}
    assert shared == {f"base-{world.spec.base}-{BLOCK}"}  # the same for all seeds
    assert {path.parent.parent.name for path in files} == {world.id, *shared}
    for path in files:
        path.write_bytes(damage)
    assert np.array_equal(new_world(cache=tmp_path).tile(10, x, y), world.tile(10, x, y))
    assert all(path.stat().st_size > 1000 for path in files)


def test_another_seed_shares_maps_and_engine_and_no_pixels(
    world: World, new_world: NewWorld, tmp_path: Path
) -> None:
    x, y = middle(10)
    first = new_world(cache=tmp_path)
    first.tile(10, x, y)
    other = first.another(8)
    assert (other.id, other.spec.seed) == (new_world(8).id, 8) and first.id == world.id
    assert np.array_equal(other.tile(10, x, y), new_world(8).tile(10, x, y))
    assert np.array_equal(first.tile(10, x, y), world.tile(10, x, y))
    assert other._pyramid._engines[10] is first._pyramid._engines[10]
    with pytest.raises(InvalidInput, match="-1"):
        first.another(-1)


def test_what_a_window_lacks_is_made_block_by_block(new_world: NewWorld) -> None:
    world = new_world()
    window = (9, TILE * middle(9)[0], TILE * middle(9)[1], 2 * TILE, TILE)
    lacking = world.lacking(*window)
    assert {key[0] for key in lacking} == {10} and len(
        lacking
    ) == 8  # odd levels come from the next
    assert world.drawn == 0
    world.prepare(lacking[0])
    drawn = world.drawn
    assert drawn > 1 and lacking[0] not in world.lacking(*window)
    world.prepare(lacking[0])
    assert world.drawn == drawn
    for key in lacking:
        world.prepare(key)
    drawn = world.drawn
    world.level(*window)
    assert not world.lacking(*window) and world.drawn == drawn
    with pytest.raises(InvalidInput, match="rows"):
        world.lacking(9, 0, -5, 10, 10)


@pytest.mark.parametrize("level", [10, 18])
def test_block_sizes_differ_by_at_most_one_level(
    world: World, new_world: NewWorld, level: int
) -> None:
    x, y = (TILE * tile for tile in middle(level))
    window = (level, x - 200, y - 150, 400, 300)
    reference = world.level(*window).astype(int)
    for block in (128, 512):
        difference = np.abs(new_world(block=block).level(*window) - reference)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3


def test_threads_share_a_world(world: World, new_world: NewWorld) -> None:
    x, y = middle(12)
    tiles = [(12, x + i % 4, y + i // 4) for i in range(8)] * 2
    shared = new_world()
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda tile: shared.tile(*tile), tiles))
    for tile, pixels in zip(tiles, drawn, strict=True):
        assert np.array_equal(pixels, world.tile(*tile))


# ------------------------------------------------------------------------------------- the edges of the map


@pytest.mark.parametrize("level", [4, 6, 7, 8, 12])
def test_the_antimeridian_is_nothing_special(world: World, second: World, level: int) -> None:
    size, y = level_size(level), TILE * middle(level)[1]
    across = second.level(level, size - 100, y, 200, 64)
    west, east = world.level(level, size - 100, y, 100, 64), world.level(level, 0, y, 100, 64)
    assert np.array_equal(across, np.concatenate([west, east], 2))
    assert np.array_equal(across, world.level(level, -100, y, 200, 64))
    assert np.array_equal(world.tile(level, -1, 1), world.tile(level, 2**level - 1, 1))


def test_no_seam_at_the_antimeridian(world: World, new_world: NewWorld) -> None:
    y = TILE * middle(8)[1]
    reference = world.level(8, -80, y, 160, 160).astype(int)
    other = new_world(block=512).level(8, -80, y, 160, 160)  # its blocks end there as well
    assert np.abs(other - reference).max() <= 1


@pytest.mark.parametrize("level", [5, 6, 8, 9, 14])
def test_the_first_and_last_rows(world: World, second: World, level: int) -> None:
    last = 2**level - 1
    x = middle(level)[0]
    for row in (0, last):
        tile = second.tile(level, x, row)
        assert tile.shape == (3, TILE, TILE)
        assert np.array_equal(tile, world.tile(level, x, row))
    for row in (-1, last + 1):
        with pytest.raises(InvalidInput, match=f"row {row} does not exist"):
            world.tile(level, x, row)
    with pytest.raises(InvalidInput, match="leave the map"):
        world.level(level, 0, level_size(level) - 10, 20, 20)


@pytest.mark.parametrize("row", [0, level_size(10) - 128])
def test_the_edge_of_the_map_is_part_of_the_canvas(new_world: NewWorld, row: int) -> None:
    small, large = (new_world(block=block).level(10, 1000, row, 256, 128) for block in (128, 1024))
    assert np.abs(small.astype(int) - large).max() <= 1


# ------------------------------------------------------------------------------------------------- the levels


@pytest.mark.parametrize("level", [3, 5, 7, 13])
def test_levels_that_are_not_drawn_are_box_means(world: World, level: int) -> None:
    x, y = (max(TILE * tile - 20, 0) for tile in middle(level))
    finer = world.level(level + 1, 2 * x, 2 * y, 200, 160)
    means = finer.reshape(3, 80, 2, 100, 2).mean((2, 4))
    assert np.abs(world.level(level, x, y, 100, 80) - means).max() <= 0.5


@pytest.mark.parametrize("level", [8, 10, 12, 14, 16, 18])
def test_a_drawn_level_reduced_by_four_is_its_parent(world: World, level: int) -> None:
    x, y = (TILE * tile for tile in middle(level))
    drawn = world.level(level, x - 200, y - 200, 400, 400)
    parent = world.level(level - 2, (x - 200) // 4, (y - 200) // 4, 100, 100)
    assert drawn.std() > parent.std()
    assert np.abs(drawn.reshape(3, 100, 4, 100, 4).mean((2, 4)) - parent).max() <= 0.51


def test_reducing_does_not_brighten() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1024, 1024), np.uint8)
    assert abs(reduce2(pixels).mean() - pixels.mean()) < 0.02
    assert (reduce2(np.full((3, 4, 4), 255, np.uint8)) == 255).all()


class Spy:
    """An engine that remembers what it was given."""

    def __init__(self, halo: int) -> None:
        self.halo, self.calls = halo, list[engines.Given]()

    def __call__(self, given: engines.Given) -> np.ndarray:
        self.calls.append(given)
        side = 4 * given.lr.shape[1] - 2 * self.halo
        return np.full((3, side, side), 77, np.uint8)


@pytest.fixture
def spy(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A world whose engine only watches."""

    def watched(**options: Any) -> tuple[World, Spy]:
        made = new_world(**options)
        engine = Spy(made.spec.halo)
        monkeypatch.setattr(engines, "start", lambda *_: engine)
        return made, engine

    return watched


@pytest.mark.parametrize("level", [8, 12, 14])
@pytest.mark.parametrize("row", [0, None, -1])
def test_what_the_network_is_given(spy: Any, level: int, row: int | None) -> None:
    world, engine = spy()
    x, y = middle(level)
    y = y if row is None else row % 2**level
    world.tile(level, x, y)
    lr, cover, ground, gsd, noise, tones, shade, wet = engine.calls[-1]
    cells = (BLOCK + 2 * world.spec.halo) // 4
    assert (lr.shape, cover.shape, ground.shape) == (
        (3, cells, cells),
        (cells, cells),
        (6, cells, cells),
    )
    assert (gsd.shape, noise.shape) == ((cells,), (3, 4 * cells, 4 * cells))
    assert [a.dtype for a in engine.calls[-1][:5]] == [np.float32, np.uint8, *[np.float32] * 3]
    assert tones is None and shade is None  # these weights know no lines
    assert wet is None  # the map is the user's own
    assert -1 <= lr.min() < lr.max() <= 1 or level > 8
    assert cover.max() <= 18
    assert ground[0].all() == (level <= 12)
    assert ground.any() == (level <= 12)
    centre = Window(level, 0, TILE * y + TILE // 2, 1, 1).gsd[0]
    assert gsd[cells // 2] == pytest.approx(centre, rel=0.02 if level == 8 else 1e-3)
    edge = world.spec.halo // 4
    if row == 0:  # rows above the map repeat its first one; the noise goes on
        assert (lr[:, :edge] == lr[:, edge : edge + 1]).all()
        assert (cover[:edge] == cover[edge]).all()
        assert (gsd[:edge] == gsd[edge]).all()
        assert (np.diff(gsd[edge:]) > 0).all() or level > 12
        assert not np.array_equal(noise[:, 0], noise[:, 1])
    if row == -1:
        assert (lr[:, -edge:] == lr[:, -edge - 1, None]).all()


def test_noise_and_input_are_those_of_the_place(spy: Any) -> None:
    from terraloom.noise import NoiseField

    world, engine = spy()
    x, y = middle(8)
    world.tile(8, x, y)
    lr, noise = engine.calls[0].lr, engine.calls[0].noise
    halo, side = world.spec.halo, BLOCK + 2 * world.spec.halo
    expected = NoiseField(7).window(8, TILE * x - halo, TILE * y - halo, side, side, channels=3)
    assert np.array_equal(noise, expected)
    parent = world.level(6, (TILE * x - halo) // 4, (TILE * y - halo) // 4, side // 4, side // 4)
    assert np.array_equal(lr, parent.astype(np.float32) / 127.5 - 1)


# ------------------------------------------------------------------------------------------------- the identity


def test_the_id_changes_with_every_field() -> None:
    spec = WorldSpec(1, "base", "ground", "model", 1024, 192, "torch", "f32")
    ids = {spec.id}
    for field in fields(spec):
        value = getattr(spec, field.name)
        ids.add(
            replace(spec, **{field.name: value + 1 if isinstance(value, int) else value + "x"}).id
        )
    assert len(ids) == len(fields(spec)) + 1
    assert all(len(name) == 12 and int(name, 16) >= 0 for name in ids)
    assert replace(spec).id == spec.id


def test_arguments_are_in_the_spec(
    new_world: NewWorld, world: World, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    import torch

    from terraloom.weights import find

    model = load_model(find(tiny_checkpoint))
    with torch.no_grad():
        next(model.parameters()).add_(0.5)
    other = save_model(model, tmp_path / "other").path
    worlds = [
        world,
        new_world(8),
        new_world(block=512),
        new_world(base=None),
        new_world(model=other),
    ]
    worlds.append(new_world(halo=80))
    assert len({each.id for each in worlds}) == len(worlds)
    assert new_world().spec == world.spec
    assert world.spec.halo == 96
    assert world.tags["TERRALOOM_WORLD_ID"] == world.id
    x, y = middle(8)
    for each in worlds[1:2] + worlds[3:5]:
        assert not np.array_equal(each.tile(8, x, y), world.tile(8, x, y))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"seed": -1}, "seed -1"),
        ({"block": 1000}, "block 1000 is not a power of two from 64 to 4096"),
        ({"block": 32}, "block 32"),
        ({"block": 8192}, "block 8192"),
        ({"halo": 90}, "halo 90"),
        ({"halo": 112}, "halo 112"),
        ({"engine": "abacus"}, "engine 'abacus' is unknown"),
        ({"base": "nowhere.tif"}, "cannot read the base map nowhere.tif"),
    ],
)
def test_bad_arguments(new_world: NewWorld, options: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        new_world(**options)


def test_bad_weights(new_world: NewWorld, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="no checkpoint 'nothing'"):
        new_world(model="nothing")


# ----------------------------------------------------------------------------------------------- read and export


def test_read_gives_the_pixels_of_the_level(world: World) -> None:
    window = Window(10, TILE * middle(10)[0] - 60, TILE * middle(10)[1] - 33, 500, 400)
    raster = world.read(bbox_of(window), coarsest_gsd(bbox_of(window), 10))
    assert np.array_equal(raster.data, world.level(10, window.x, window.y, 500, 400))
    assert raster.transform.almost_equals(window.transform, 1e-6)
    assert raster.crs.to_epsg() == 3857


def test_read_across_the_antimeridian(world: World) -> None:
    window = Window(9, level_size(9) - 150, TILE * 200, 300, 100)
    box = bbox_of(window)
    assert box[0] > box[2]
    raster = world.read(box, coarsest_gsd(box, 9))
    assert np.array_equal(raster.data, world.level(9, window.x, window.y, 300, 100))


def test_read_in_another_crs(world: World) -> None:
    raster = world.read((30, 29, 31, 29.8), 700, crs="EPSG:32636")
    assert raster.crs.to_epsg() == 32636
    assert raster.transform.a == 700
    assert (raster.data.sum(0) > 0).mean() > 0.99  # drawn into the corners


def test_sizes_have_limits(world: World, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at most 16384 a side; use export"):
        world.read((0, 0, 10, 10), 10)
    with pytest.raises(InvalidInput, match="at most 16384"):
        world.level(10, 0, 0, 20000, 10)
    with pytest.raises(InvalidInput, match="at most 1048576"):
        world.export((-170, -80, 170, 80), 1, tmp_path / "a.tif")


def region(level: int, width: int, height: int) -> Window:
    """A window that starts on a corner of tiles."""
    x, y = middle(level)
    return Window(level, TILE * x, TILE * y, width, height)


def test_an_export_is_a_tagged_cog_of_the_same_pixels(world: World, tmp_path: Path) -> None:
    rio_cogeo = pytest.importorskip("rio_cogeo")
    window, steps = region(10, 1300, 1100), list[tuple[int, int]]()
    box, path = bbox_of(window), tmp_path / "out.tif"
    written = world.export(
        box, coarsest_gsd(box, 10), path, progress=lambda done, total: steps.append((done, total))
    )
    assert written == path
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(), world.level(10, window.x, window.y, 1300, 1100))
        assert file.crs.to_epsg() == 3857
        assert file.transform.almost_equals(window.transform, 1e-6)
        assert file.descriptions == ("red", "green", "blue")
        assert file.overviews(1)
        tags = file.tags()
    for key, value in world.tags.items():
        assert tags[key] == value
    assert tags["SYNTHETIC"] == "true"
    assert tags["TERRALOOM_SEED"] == "7"
    assert tags["TERRALOOM_MODEL"] == world.spec.model
    assert "Natural Earth" in tags["TIFFTAG_COPYRIGHT"]
    assert rio_cogeo.cog_validate(path, quiet=True)[0]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InvalidInput, match="exists already"):
        world.export(box, 40, path)


@pytest.mark.slow
def test_an_export_equals_its_256_tiles(new_world: NewWorld, tmp_path: Path) -> None:
    window = region(10, 4096, 4096)
    box = bbox_of(window)
    world = new_world(block=1024)
    path = world.export(box, coarsest_gsd(box, 10), tmp_path / "out.tif")
    with rasterio.open(path) as file:
        assert (file.width, file.height) == (4096, 4096)
        for row in reversed(range(16)):
            for column in range(16):
                there = RasterWindow(TILE * column, TILE * row, TILE, TILE)
                tile = world.tile(10, window.x // TILE + column, window.y // TILE + row)
                assert np.array_equal(file.read(window=there), tile)


def test_an_export_in_another_crs_equals_the_read(world: World, tmp_path: Path) -> None:
    box = (30.0, 29.0, 30.45, 29.1)
    path = world.export(box, 40, tmp_path / "utm.tif", crs="EPSG:32636")
    raster = world.read(box, 40, crs="EPSG:32636")
    assert raster.data.shape[2] > 1024  # more than one part
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(), raster.data)
        assert file.crs == raster.crs
        assert file.transform == raster.transform


def test_ctrl_c_leaves_nothing(world: World, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.export(bbox_of(region(8, 600, 600)), 700, tmp_path / "out.tif", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_before_anything_is_drawn(spy: Any, tmp_path: Path) -> None:
    world, engine = spy()
    with pytest.raises(InvalidInput, match="does not exist"):
        world.export((10, 50, 11, 51), 100, tmp_path / "no" / "out.tif")
    assert engine.calls == []


# ------------------------------------------------------------------------------------------ other models and maps


def test_a_diffusion_cascade_plugs_in(new_world: NewWorld, tmp_path: Path) -> None:
    from terraloom.models.metaearth import MetaEarthConfig, MetaEarthUNet

    config = MetaEarthConfig(widths=(32,) * 4, attention=(), embed=32, lr_blocks=1, evaluations=1)
    model = save_model(MetaEarthUNet(config), tmp_path).path
    first = new_world(model=model, block=128, halo=None)
    assert first.spec.halo == 64
    x, y = middle(8)
    together = first.level(8, TILE * x, TILE * y, 2 * 128, 128)
    assert np.array_equal(
        new_world(model=model, block=128, halo=None).level(8, TILE * x + 128, TILE * y, 128, 128),
        together[:, :, 128:],
    )


def test_a_users_land_cover_is_what_the_network_sees(
    tiny_checkpoint: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ground, "open", OPEN_GROUND)
    path = tmp_path / "cover.tif"
    grid = rasterio.transform.from_origin(20, 45, 0.5, 0.5)
    with rasterio.open(
        path, "w", width=40, height=40, count=1, dtype="uint8", crs="EPSG:4326", transform=grid
    ) as file:
        file.write(np.full((1, 40, 40), 13, np.uint8))  # urban, from 20 E 25 N to 40 E 45 N
    options: dict[str, Any] = {"model": tiny_checkpoint, "base": tiny_base, "cache": False}
    options |= {"engine": "torch", "block": BLOCK}
    city, real = World(cover=path, **options), World(**options)
    assert city.id != real.id
    engine = Spy(city.spec.halo)
    monkeypatch.setattr(engines, "start", lambda *_: engine)
    city.tile(12, *middle(12))
    assert (engine.calls[-1][1] == 13).all()
