"""Compiled programs that are kept: found again, never taken for what they are not."""

import os
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from stableanimator_jax.errors import InputError
from stableanimator_jax.models.functional import Model
from stableanimator_jax.sampling import programs
from stableanimator_jax.sampling.programs import kept, quick_starts
from tests.virtual_devices import run_on_virtual_devices

traced = []
OWN_CACHE = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@kept
@partial(jax.jit, static_argnames="power")
def scaled(x, by, *, power=1):
    traced.append(power)
    return x**power * by["by"], x.sum()


X, BY = np.arange(6, dtype=np.float32), {"by": np.float32(3)}


def start(folder, *arguments, **static):
    """What a new process would do: nothing is known but what lies in the folder. Also: was it compiled?"""
    jax.clear_caches()
    compiled = []
    with quick_starts(str(folder), on_compile=compiled.append):
        result, total = scaled(*(arguments or (X, BY)), **static)
    return np.asarray(result), float(total), bool(compiled)


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_second_start_neither_traces_nor_compiles(tmp_path):
    first, total, compiled = start(tmp_path)
    assert compiled
    traced.clear()
    again, same, compiled = start(tmp_path)
    assert (compiled, traced) == (False, [])
    np.testing.assert_array_equal(first, again)
    assert total == same == 15
    np.testing.assert_array_equal(first, 3 * X)


def test_the_first_start_keeps_programs_too_where_no_cache_is_yet(tmp_path):
    before = {name: jax.config.values[name] for name in OWN_CACHE}
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "new" / "cache"))
    try:
        with quick_starts():
            scaled(X, BY)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert next(path.name for path in files(tmp_path / "new" / "cache" / "programs")).startswith("scaled-")


def test_what_jaxs_own_cache_gave_is_compiled_anew_to_be_kept(tmp_path):
    """On a CPU it lacks what it takes to be kept once more; and within a process JAX gives it again unasked."""
    before = {name: jax.config.values[name] for name in OWN_CACHE}
    try:
        for name, value in zip(OWN_CACHE, (str(tmp_path / "jax"), 0, -1), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        for _ in range(2):  # the second is out of the cache
            jax.clear_caches()
            scaled(X, BY)
        assert files(tmp_path / "jax")
        with quick_starts(str(tmp_path / "ours")):
            scaled(X, BY)
        result, _, compiled = start(tmp_path / "ours")
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    assert not compiled
    np.testing.assert_array_equal(result, 3 * X)


def test_without_a_folder_open_it_is_jaxs_own_function():
    traced.clear()
    scaled(X, BY), scaled(X, BY)
    assert len(traced) <= 1
    assert "multiply" in scaled.lower(X, BY).as_text()
    np.testing.assert_array_equal(jax.jit(lambda x: scaled(x, BY)[0])(X), 3 * X)
    with quick_starts(None):
        np.testing.assert_array_equal(jax.jit(lambda x: scaled(x, BY)[0])(X), 3 * X)  # within another one's trace


def test_every_difference_that_counts_is_another_program(tmp_path):
    one, two = jnp.asarray(X), jax.device_put(X, jax.devices()[0])
    calls = [
        ((X, BY), {}), ((X, BY), {"power": 2}), ((X[:3], BY), {}), ((X.astype(np.int32), BY), {}),
        ((one, BY), {}), ((two, BY), {}), ((X, BY | {"more": X}), {}),
    ]  # fmt: skip
    with jax.numpy_dtype_promotion("standard"):
        for n, (arguments, static) in enumerate(calls):
            assert start(tmp_path, *arguments, **static)[2], n
            assert len(files(tmp_path)) == n + 1
        assert not any(start(tmp_path, *arguments, **static)[2] for arguments, static in calls)
    np.testing.assert_array_equal(start(tmp_path, power=2)[0], 3 * X**2)


def test_models_count_by_their_structure_not_by_their_numbers(tmp_path):
    @kept
    @jax.jit
    def total(model):
        return model.params["a"].sum() * model.blueprint

    compiled = []
    with quick_starts(tmp_path, on_compile=compiled.append):
        for model, expected in ((Model({"a": X}, 1), 15), (Model({"a": 2 * X}, 1), 30), (Model({"a": X}, 2), 30)):
            with jax.numpy_dtype_promotion("standard"):
                assert total(model) == expected
    assert len(compiled) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.write_bytes(file.read_bytes()[:200] + b"?" + file.read_bytes()[201:]),
        lambda file: file.chmod(0o666),
        lambda file: (file.unlink(), file.mkdir()),
        lambda file: file.parent.chmod(0o777),
    ],
)
def test_what_is_damaged_or_could_be_anybodys_is_compiled_anew(tmp_path, damage):
    start(tmp_path)
    (file,) = files(tmp_path)
    damage(file)
    result, total, compiled = start(tmp_path)
    assert (compiled, total) == (True, 15)
    np.testing.assert_array_equal(result, 3 * X)


def test_another_ones_program_under_this_name_is_not_taken(tmp_path):
    """Of other code or versions, it has another name; a copy under this one says in itself what it is."""
    start(tmp_path)
    (file,) = files(tmp_path)
    start(tmp_path, power=2)
    (other,) = {*files(tmp_path)} - {file}
    shutil.copy(other, file)
    result, _, compiled = start(tmp_path)
    assert compiled
    np.testing.assert_array_equal(result, 3 * X)


@pytest.mark.parametrize("change", ["code", "flags", "setting"])
def test_other_code_flags_and_settings_have_other_programs(tmp_path, monkeypatch, change):
    start(tmp_path)
    if change == "code":
        monkeypatch.setattr(programs, "_build", lambda: "of another version")
    elif change == "flags":
        monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    elif change == "setting":
        jax.config.update("jax_default_matmul_precision", "highest")
    try:
        assert start(tmp_path)[2]
    finally:
        jax.config.update("jax_default_matmul_precision", None)


def test_where_nothing_can_be_kept_it_is_compiled_every_time(tmp_path):
    (tmp_path / "file").touch()
    assert all(start(folder)[2] for folder in [tmp_path / "file" / "programs"] * 2)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as a disk that is full
    try:
        assert all(start(folder)[2] for folder in [tmp_path / "full"] * 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not files(tmp_path / "full")


def test_programs_of_versions_that_are_no_longer_used_go_and_nothing_else(tmp_path):
    def aged(folder: str, file: str, days: int) -> None:
        (tmp_path / folder).mkdir(mode=0o700)
        (tmp_path / folder / file).touch()
        at = programs.time.time() - days * 24 * 3600
        os.utime(tmp_path / folder, (at, at))

    program = "predict-" + "0" * 64
    aged("a" * 32, program, 40), aged("b" * 32, program, 7), aged("thesis", program, 40), aged("c" * 32, "chapter", 40)
    (tmp_path / ("d" * 32)).symlink_to(tmp_path / "thesis")
    start(tmp_path)
    left = {path.name for path in tmp_path.iterdir()} - {programs._build()}
    assert left == {"b" * 32, "thesis", "c" * 32, "d" * 32}
    assert (tmp_path / "thesis" / program).exists()


def test_a_setting_of_a_block_alone_counts_too(tmp_path):
    compiled = []
    with quick_starts(tmp_path, on_compile=compiled.append):
        scaled(X, BY)
        with jax.default_matmul_precision("highest"):
            scaled(X, BY)
        scaled(X, BY)
    assert len(compiled) == 2


def test_other_threads_are_not_concerned(tmp_path):
    with ThreadPoolExecutor(1) as other, quick_starts(tmp_path, only_compile=True):
        np.testing.assert_array_equal(other.submit(scaled, X, BY).result()[0], 3 * X)
        np.testing.assert_array_equal(scaled(X, BY)[0], np.ones(6))
    np.testing.assert_array_equal(scaled(X, BY)[0], 3 * X)


def test_a_model_that_is_being_traced(tmp_path):
    @kept
    @jax.jit
    def total(model):
        return model.params["a"].sum()

    with quick_starts(tmp_path):
        assert jax.jit(lambda model: total(model))(Model({"a": X}, 1)) == 15


def test_where_nothing_is_kept_nothing_is_compiled_ahead(monkeypatch):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with pytest.raises(InputError, match="nothing can be compiled ahead"), quick_starts(only_compile=True):
            pass
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def test_compiling_only_gives_ones_and_leaves_the_program(tmp_path):
    jax.clear_caches()
    with quick_starts(tmp_path, only_compile=True):
        result, total = scaled(X, BY)
    np.testing.assert_array_equal(result, np.ones(6))
    assert float(total) == 1
    assert start(tmp_path) == (pytest.approx(3 * X), 15, False)


ON_EIGHT = """
    import jax, numpy as np
    from functools import partial
    from pathlib import Path
    from jax.sharding import NamedSharding, PartitionSpec
    from stableanimator_jax.parallel import make_mesh, on_each_device
    from stableanimator_jax.sampling.programs import kept, quick_starts

    @kept
    @jax.jit
    def product(x, y):
        return x @ y

    @kept
    @partial(jax.jit, static_argnames="mesh")
    def each(shared, items, *, mesh):
        return on_each_device(lambda shared, item: shared + item, mesh)(shared, items)

    compiled, devices = [], jax.devices()
    assert len(devices) == 8
    with quick_starts(Path("FOLDER"), on_compile=compiled.append):
        for some in (devices, devices[2:6], devices[6:2:-1], devices[5:6]):
            mesh = make_mesh(devices=some)
            x = np.arange(64, dtype=np.float32).reshape(8, 8)
            y = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
            z = product(y, jax.device_put(2 * np.eye(8, dtype=np.float32), NamedSharding(mesh, PartitionSpec())))
            np.testing.assert_array_equal(z, 2 * x)
            assert z.sharding.device_set == set(some)
            numbers = np.arange(len(some), dtype=np.float32)
            np.testing.assert_array_equal(each(np.float32(1), (numbers,), mesh=mesh), numbers + 1)
    print(compiled, len(compiled))
"""


def test_programs_of_some_of_several_devices(tmp_path):
    code = ON_EIGHT.replace("FOLDER", str(tmp_path))
    assert [run_on_virtual_devices(8, code).split()[-1] for _ in range(2)] == ["8", "0"]
