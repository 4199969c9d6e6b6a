from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.clustering.infomap import infomap_labels
from calr_cli.distances import knn
from calr_cli.distances.knn import Backend, approximate_knn, as_features, choose_backend, search_by_rule
from calr_cli.errors import ConfigError, DataError, MemoryLimitError
from tests.conftest import load_golden
from tests.support import oracles
from tests.support.features import separated_features, unit_features

# The package offers the function under the module's name, so the module is asked for by its full name.
MODULE = importlib.import_module("calr_cli.distances.knn")


@pytest.fixture(params=["faiss", "torch"])
def search(request: pytest.FixtureRequest) -> Backend:
    """Both ways of searching; without FAISS installed there is one."""
    if request.param == "faiss" and not MODULE.HAS_FAISS:
        pytest.skip("FAISS is not installed")
    backend: Backend = request.param
    return backend


def one_hot(seed: int, count: int, kinds: int) -> np.ndarray:
    """Exact duplicates: every similarity is exactly 0 or 1."""
    return np.eye(kinds, dtype=np.float32)[np.random.default_rng(seed).integers(0, kinds, count)]


def by_argsort(features: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(features @ features.T), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(
    ("count", "kinds", "k"),
    [(50, 5, 3), (300, 8, 15), (300, 4, 120), (40, 1, 15), (40, 1, 40)],
    # 120: FAISS keeps more than 100 neighbours in another structure, with another rule for equals
)
def test_equal_similarities_come_by_index_even_where_k_cuts_through_them(
    search: Backend, count: int, kinds: int, k: int
) -> None:
    features = one_hot(0, count, kinds)
    np.testing.assert_array_equal(knn(features, k, backend=search).indices, by_argsort(features, k))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 30), k=st.integers(1, 40))
def test_equals_the_oracle(seed: int, count: int, k: int) -> None:
    features = separated_features(seed, count)
    assert knn(features, k).indices.tolist() == oracles.nearest(features, k)


def test_similarities_belong_to_their_indices_and_descend(search: Backend) -> None:
    features = unit_features(1, 60)
    found = knn(features, 7, backend=search)
    products = features @ features.T
    np.testing.assert_allclose(found.similarities, np.take_along_axis(products, found.indices, 1), atol=1e-6)
    assert (np.diff(found.similarities, axis=1) <= 0).all()
    assert (found.indices[:, 0] == np.arange(60)).all()  # itself counted, and nearest
    assert found.k == 7


def test_k_is_cut_to_the_number_of_images(search: Backend) -> None:
    assert knn(unit_features(0, 4), 15, backend=search).indices.shape == (4, 4)
    assert knn(np.empty((0, 8)), 15).indices.shape == (0, 0)


@pytest.mark.skipif(not MODULE.HAS_FAISS, reason="FAISS is not installed")
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 150), k=st.integers(1, 30))
def test_the_searches_agree(seed: int, count: int, k: int) -> None:
    # Only candidates whose similarities differ by rounding, less than 1e-6, may change places.
    features = unit_features(seed, count, 3)
    one, other = knn(features, k, backend="faiss"), knn(features, k, backend="torch")
    np.testing.assert_allclose(one.similarities, other.similarities, atol=1e-6)
    products = features @ features.T
    for rows, columns in ((one.indices, other.indices), (other.indices, one.indices)):
        np.testing.assert_allclose(
            np.take_along_axis(products, rows, 1), np.take_along_axis(products, columns, 1), atol=1e-6
        )


@pytest.mark.parametrize("rows_per_block", [1, 7, 64])
def test_blocks_make_no_difference(rows_per_block: int) -> None:
    features = one_hot(3, 64, 6)
    expected = by_argsort(features, 5)
    found = knn(features, 5, backend="torch", block_bytes=4 * 64 * rows_per_block)
    np.testing.assert_array_equal(found.indices, expected)
    indices, similarities = search_by_rule(features, features, 5, block_bytes=8 * 64 * rows_per_block)
    np.testing.assert_array_equal(np.sort(expected, axis=1), indices)
    np.testing.assert_array_equal(similarities, np.take_along_axis(features @ features.T, indices, 1))


def test_choice_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_backend("torch") == "torch"
    knows = MODULE.HAS_FAISS and MODULE._faiss_knows_this_cpu()
    assert choose_backend() == ("faiss-cpu" if knows else "torch")
    monkeypatch.setattr(MODULE, "HAS_FAISS", False)
    assert choose_backend("auto", torch.device("cuda")) == "torch"
    with pytest.raises(ConfigError) as caught:
        knn(unit_features(0, 5), 3, backend="faiss")
    assert caught.value.lines() == [
        "FAISS is asked for and not installed. Install it with: pip install 'calr-cli[faiss]', or take torch"
    ]
    with pytest.raises(ConfigError) as caught:
        approximate_knn(unit_features(0, 5), 3)
    assert caught.value.lines() == [
        "an approximate search needs FAISS, which is not installed. Install it with: "
        "pip install 'calr-cli[faiss]', or search exactly"
    ]


WITHOUT_FAISS = """
import sys
sys.modules["faiss"] = None  # an import of it fails
import numpy as np
from calr_cli.clustering.infomap import infomap_labels
from calr_cli.distances.knn import HAS_FAISS, choose_backend, knn
assert not HAS_FAISS and choose_backend() == "torch"
near = knn(np.load(sys.argv[1]), 15)
np.savez(sys.argv[2], indices=near.indices, labels=infomap_labels(near, 0.5))
"""


@pytest.mark.skipif(not MODULE.HAS_FAISS, reason="FAISS is not installed")
def test_without_faiss_neighbours_and_clusters_are_the_same(tmp_path: Path) -> None:
    features = load_golden("b")["features"]
    np.save(tmp_path / "features.npy", features)
    files = [str(tmp_path / name) for name in ("features.npy", "found.npz")]
    subprocess.run([sys.executable, "-c", WITHOUT_FAISS, *files], check=True, timeout=280)
    near = knn(features, 15, backend="faiss")
    labels = infomap_labels(near, 0.5)
    assert labels.max() > 0
    with np.load(files[1]) as found:
        np.testing.assert_array_equal(found["indices"], near.indices)
        np.testing.assert_array_equal(found["labels"], labels)


@pytest.mark.parametrize(
    ("architecture", "library", "chosen"),
    [
        ("SkylakeX", "faiss_gpu.libs/libopenblaso.so", "faiss-cpu"),
        ("Prescott", "numpy.libs/libscipy_openblas64_.so", "faiss-cpu"),
        ("Prescott", "faiss_gpu.libs/libopenblaso.so", "torch"),
    ],
)
def test_faiss_is_left_alone_where_its_products_are_slow(
    monkeypatch: pytest.MonkeyPatch, architecture: str, library: str, chosen: str
) -> None:
    monkeypatch.setattr(MODULE, "HAS_FAISS", True)
    found = [{"filepath": "libgomp.so"}, {"filepath": library, "architecture": architecture}]
    monkeypatch.setattr(MODULE, "threadpool_info", lambda: found)
    MODULE._faiss_knows_this_cpu.cache_clear()
    try:
        assert choose_backend() == chosen
        assert choose_backend("faiss") == "faiss-cpu"  # who asks for it gets it
    finally:
        MODULE._faiss_knows_this_cpu.cache_clear()


class FaissOnGpus:
    """FAISS of the GPU wheel with two GPUs, of which the second is full."""

    METRIC_INNER_PRODUCT = 0

    def __init__(self) -> None:
        self.said: list[object] = []

    def get_num_gpus(self) -> int:
        return 2

    def StandardGpuResources(self) -> str:  # noqa: N802
        self.said.append("resources")
        return "resources"

    def knn_gpu(
        self, resources: str, rows: np.ndarray, others: np.ndarray, k: int, *, metric: int, device: int
    ) -> tuple[np.ndarray, np.ndarray]:
        self.said.append(device)
        if device == 1:
            raise RuntimeError(
                "Error in virtual void* faiss::gpu::StandardGpuResourcesImpl::allocMemory(): "
                "StandardGpuResources: alloc fail type TemporaryMemoryBuffer dev 1 space Device stream 0x0 "
                "size 1610612736 bytes (cudaMalloc error out of memory [2])\n"
            )
        products = rows @ others.T
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(products, order, axis=1), order


def test_faiss_works_on_the_gpu_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, features = FaissOnGpus(), unit_features(0, 20)
    monkeypatch.setattr(MODULE, "HAS_FAISS", True)
    monkeypatch.setattr(MODULE, "faiss", fake, raising=False)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: fake.said.append("cache emptied"))
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    assert choose_backend("auto", second) == "torch"
    assert choose_backend("faiss", second) == "faiss-gpu"
    found = knn(features, 5, backend="faiss", device=first)
    assert fake.said == ["cache emptied", "resources", 0]
    np.testing.assert_array_equal(found.indices, knn(features, 5, backend="torch").indices)
    with pytest.raises(MemoryLimitError) as caught:
        knn(features, 5, backend="faiss", device=second)
    assert caught.value.lines() == [
        "the memory of cuda:1 is full. FAISS searches beside the network: give --set search.backend=torch"
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_the_gpu_agrees_with_the_cpu(backend: Backend) -> None:
    features = unit_features(0, 3000, 64)
    here, there = knn(features, 15), knn(features, 15, backend=backend, device=torch.device("cuda"))
    np.testing.assert_allclose(here.similarities, there.similarities, atol=1e-5)


@pytest.mark.skipif(not MODULE.HAS_FAISS, reason="FAISS is not installed")
def test_the_approximate_search_tells_its_recall() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 16)).repeat(20, 0) + 0.3 * rng.normal(size=(4000, 16))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    found, recall = approximate_knn(features, 10)
    exact = knn(features, 10)
    assert found.indices.shape == exact.indices.shape
    assert (
        found.indices[:, 0] == np.arange(4000)
    ).mean() > 0.99  # itself nearest, however little is searched
    true = np.mean(
        [len(np.intersect1d(a, b)) / 10 for a, b in zip(found.indices, exact.indices, strict=True)]
    )
    assert 0.7 < recall <= 1
    assert recall == pytest.approx(true, abs=0.05)
    assert (np.diff(found.similarities, axis=1) <= 0).all()


@pytest.mark.parametrize("kind", ["list", "float64", "tensor", "tensor with gradient", "transposed"])
def test_takes_lists_arrays_and_tensors(kind: str) -> None:
    features = unit_features(4, 12)
    given_as = {
        "list": features.tolist(),
        "float64": features.astype(np.float64),
        "tensor": torch.from_numpy(features),
        "tensor with gradient": torch.from_numpy(features).requires_grad_(),
        "transposed": np.asfortranarray(features),
    }
    np.testing.assert_array_equal(knn(given_as[kind], 5).indices, knn(features, 5).indices)


def test_bad_features_are_named() -> None:
    features = unit_features(0, 5)
    features[3, 1] = np.inf
    with pytest.raises(DataError) as caught:
        as_features(features)
    assert caught.value.lines() == [
        "the features of image 3 are not all finite numbers. "
        "Lower the learning rate or check the weights that the features were made with"
    ]
    with pytest.raises(DataError, match=r"^features have shape \(5,\), expected \(images, dimensions\)$"):
        as_features(np.zeros(5))
