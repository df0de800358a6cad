import numpy as np
import pytest
from gallery_support import SPACE, batch, random_gallery

from models import faiss_packages
from models.errors import InvalidConfig
from models.gallery import Gallery


def distributions(*names):
    class Distribution:
        def __init__(self, name):
            self.metadata = {"Name": name}

    return lambda: [Distribution(name) for name in (*names, "numpy", None)]


@pytest.fixture(autouse=True)
def _forget_which_faiss_was_found():
    yield
    faiss_packages.require_one_faiss.cache_clear()


def test_two_faiss_packages_are_refused_before_anything_is_built_or_loaded(tmp_path, monkeypatch):
    built, _, _ = random_gallery()
    built.save(tmp_path)
    monkeypatch.setattr(faiss_packages.importlib.metadata, "distributions", distributions("faiss-cpu", "faiss_gpu"))
    faiss_packages.require_one_faiss.cache_clear()
    with pytest.raises(InvalidConfig, match=r"faiss-cpu and faiss-gpu, .* uninstall"):
        Gallery.build(batch(np.eye(2)), ["a", "b"])
    with pytest.raises(InvalidConfig, match="faiss-cpu and faiss-gpu"):
        Gallery.load(tmp_path, expected_space_id=SPACE)
    with pytest.raises(InvalidConfig, match="faiss-cpu and faiss-gpu"):
        Gallery(built.parts)


@pytest.mark.parametrize("name", ["faiss-cpu", "faiss_gpu", "faiss-gpu-cuvs"])
def test_one_faiss_package_is_accepted(monkeypatch, name):
    monkeypatch.setattr(faiss_packages.importlib.metadata, "distributions", distributions(name))
    faiss_packages.require_one_faiss.cache_clear()
    assert random_gallery()[0].sheet_count == 40
    assert faiss_packages.installed_faiss_packages() == [name.replace("_", "-")]
