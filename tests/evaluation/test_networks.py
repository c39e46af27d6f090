"""The metrics' networks as files make them: what is accepted, what is refused, and batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.networks import network as running
from stableanimator_jax.evaluation.networks.i3d import I3D, I3DConfig
from stableanimator_jax.evaluation.networks.inception import Inception, InceptionConfig
from stableanimator_jax.evaluation.networks.loading import load_i3d, load_inception, load_lpips, load_resnet_3d
from stableanimator_jax.evaluation.networks.lpips import Lpips, LpipsConfig
from stableanimator_jax.evaluation.networks.network import Network, features
from stableanimator_jax.evaluation.networks.published import FILES
from stableanimator_jax.evaluation.networks.resnet_3d import ResNet3D, ResNet3DConfig
from stableanimator_jax.evaluation.networks.tables import I3D as I3D_TABLE
from stableanimator_jax.evaluation.networks.tables import INCEPTION, LPIPS, RESNET_3D
from stableanimator_jax.models.functional import Blueprint
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.provenance import file_sha256
from stableanimator_jax.weights.rules import by_name, plan_export
from tests.random_params import random_params
from tests.virtual_devices import run_on_virtual_devices
from tests.weights.state_dicts import export

KINDS = {
    "i3d": (Blueprint(I3D, I3DConfig(), Precision()), I3D_TABLE, 12_697_264),
    "inception": (Blueprint(Inception, InceptionConfig(), Precision()), INCEPTION, 21_785_568),
    "resnet_3d": (Blueprint(ResNet3D, ResNet3DConfig(), Precision()), RESNET_3D, 46_198_976),
    "vgg": (Blueprint(Lpips, LpipsConfig("vgg"), Precision()), LPIPS["vgg"], 14_714_688 + 1_472),
    "alex": (Blueprint(Lpips, LpipsConfig("alex"), Precision()), LPIPS["alex"], 2_469_696 + 1_152),
}
LOAD = {"i3d": load_i3d, "inception": load_inception, "resnet_3d": load_resnet_3d}


def state_dict(kind: str) -> dict[str, np.ndarray]:
    blueprint, table, _ = KINDS[kind]
    return export(table, random_params(blueprint.abstract_params(), 0))


@pytest.fixture(scope="module")
def alex():
    return state_dict("alex")


def save_alex(tensors, folder):
    files = folder / "alex.safetensors", folder / "heads.safetensors"
    heads = {key: value for key, value in tensors.items() if key.startswith("lin")}
    save_file({key: value for key, value in tensors.items() if key not in heads}, files[0])
    save_file(heads, files[1])
    return files


@pytest.fixture
def lpips(alex, tmp_path) -> Network:
    return load_lpips("alex", *save_alex(alex, tmp_path))


def pairs(rows: int) -> list[np.ndarray]:
    generator = np.random.default_rng(rows)
    return [generator.uniform(-1, 1, (rows, 33, 32, 3)).astype(np.float32) for _ in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_sizes(kind):
    blueprint, table, parameters = KINDS[kind]
    leaves = by_name(blueprint.abstract_params())
    statistics = (".mean", ".var")
    assert sum(leaf.size for name, leaf in leaves.items() if not name.endswith(statistics)) == parameters
    assert len(plan_export(table, blueprint.abstract_params())) == len(leaves)


def test_i3d_is_of_344_tensors():
    keys = {a.key for a in plan_export(I3D_TABLE, KINDS["i3d"][0].abstract_params())}
    counters = {key.replace("running_mean", "num_batches_tracked") for key in keys if key.endswith("running_mean")}
    assert len(keys | counters) == 344
    assert {"Conv3d_1a_7x7.conv3d.weight", "Mixed_5c.b3b.bn.running_var", "logits.conv3d.bias"} <= keys


def test_files_are_told_by_their_hashes(alex, tmp_path):
    files = save_alex(alex, tmp_path)
    network = load_lpips("alex", *files)
    assert network.sha256 == {"alex": file_sha256(files[0]), "alex_heads": file_sha256(files[1])}
    assert network.name == "LPIPS 0.1, alex"
    back = export(LPIPS["alex"], network.model.params)
    assert back.keys() == alex.keys()
    for key, value in back.items():
        np.testing.assert_array_equal(value, alex[key])


@pytest.mark.parametrize("kind", LOAD)
def test_a_missing_file_is_told_with_where_to_get_it(kind, tmp_path):
    with pytest.raises(InputError, match="does not exist") as error:
        LOAD[kind](tmp_path / "nowhere.pth")
    assert FILES[kind].name in str(error.value)
    assert FILES[kind].page in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_heads_are_told(alex, tmp_path):
    file, _ = save_alex(alex, tmp_path)
    with pytest.raises(InputError, match="PerceptualSimilarity"):
        load_lpips("alex", file, tmp_path / "none.pth")


def test_other_weights_are_refused(alex, tmp_path):
    file, heads = save_alex(alex, tmp_path)
    with pytest.raises(InputError, match=r"unmapped: features\.0\.weight"):
        load_i3d(file)
    with pytest.raises(InputError, match=r"wrong shape: features\.0\.weight"):
        load_lpips("vgg", file, heads)
    with pytest.raises(InputError, match="both have"):
        load_lpips("alex", file, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("features.3.bias"), "unfilled: backbone.convs.1.bias"),
        (lambda d: d.pop("lin2.model.1.weight"), "unfilled: heads.2.weight"),
        (lambda d: d.update({"features.1.weight": d["features.0.weight"]}), "unmapped: features.1.weight"),
        (lambda d: d.update({"features.0.bias": np.full(64, np.nan, np.float32)}), "NaN or infinite, in features.0"),
        (lambda d: d.update({"features.0.bias": np.zeros(64, np.int32)}), "not floating point"),
    ],
)
def test_damaged_weights_are_refused(alex, tmp_path, change, message):
    damaged = dict(alex)
    change(damaged)
    with pytest.raises(InputError, match=message):
        load_lpips("alex", *save_alex(damaged, tmp_path))


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("i3d", (1, 15, 224, 224, 3), "I3D takes rows of 16x224x224x3, got 15x224x224x3"),
        ("i3d", (1, 16, 256, 256, 3), "got 16x256x256x3"),
        ("inception", (1, 256, 256, 3), "299x299x3"),
        ("resnet_3d", (1, 17, 112, 112, 3), "16x112x112x3"),
    ],
)
def test_other_sizes_are_refused(kind, shape, message):
    blueprint = KINDS[kind][0]
    model = running.Model(blueprint.abstract_params(), blueprint)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(running._apply, model, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_lpips_refuses_what_it_cannot_compare(lpips):
    a, b = pairs(1)
    with pytest.raises(InputError, match="one shape"):
        lpips(a, b[:, :32])
    with pytest.raises(InputError, match="31 pixels"):
        lpips(a[:, :30], b[:, :30])


def test_batches_are_the_whole_and_of_one_program(lpips):
    a, b = pairs(5)
    whole = lpips(a, b)
    assert whole.shape == (5,)
    before = running._apply._cache_size()
    np.testing.assert_allclose(features(lpips, a, b, batch=3), whole, rtol=1e-5)
    assert running._apply._cache_size() == before + 1
    np.testing.assert_allclose(features(lpips, a[:2], b[:2], batch=3), whole[:2], rtol=1e-5)
    assert features(lpips, a[:0], b[:0], batch=3).shape == (0,)
    assert running._apply._cache_size() == before + 1


@pytest.mark.long
def test_sharded_is_whole(lpips, tmp_path):
    a, b = pairs(5)
    np.savez(tmp_path / "pairs.npz", a=a, b=b, whole=features(lpips, a, b, batch=5))
    run_on_virtual_devices(
        2,
        f"""
        from pathlib import Path
        import jax
        import numpy as np
        from stableanimator_jax.evaluation.networks.loading import load_lpips
        from stableanimator_jax.evaluation.networks.network import features
        from stableanimator_jax.parallel import make_mesh

        folder = Path({str(tmp_path)!r})
        case = np.load(folder / "pairs.npz")
        network = load_lpips("alex", folder / "alex.safetensors", folder / "heads.safetensors").on(make_mesh())
        assert all(len(leaf.sharding.device_set) == 2 for leaf in jax.tree.leaves(network.model.params))
        found = features(network, case["a"], case["b"], batch=3)
        np.testing.assert_allclose(found, case["whole"], rtol=1e-5)
        """,
    )
