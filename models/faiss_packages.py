"""Which distribution provides the module `faiss`."""

import importlib.metadata
from functools import lru_cache

from models.errors import InvalidConfig

_FAISS_PACKAGES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu11", "faiss-gpu-cu12")


def installed_faiss_packages() -> list[str]:
    """Names of the installed distributions that provide the module `faiss`."""
    installed = (d.metadata["Name"] for d in importlib.metadata.distributions())
    return sorted({name.lower().replace("_", "-") for name in installed if name} & set(_FAISS_PACKAGES))


@lru_cache(maxsize=1)
def require_one_faiss() -> None:
    """Raises `InvalidConfig` when several FAISS packages are installed.

    They overwrite each other's files, so that the GPU is lost, or worse, without any complaint from pip.
    """
    found = installed_faiss_packages()
    if len(found) > 1:
        raise InvalidConfig(
            f"expected one FAISS package, found {' and '.join(found)}, which overwrite each other; "
            f"uninstall them all, then install one extra: voucher[cpu] or voucher[gpu]"
        )
