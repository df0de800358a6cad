"""What a process that builds again and again keeps in memory between two builds."""

from indexer.embedding_store import EmbeddingStore
from indexer.splits import Splits
from models.artifacts import folder_of
from models.bundle import Bundle, TrainedModel, load_bundle, load_model
from models.compute import Compute
from models.home import Home


class BuildCache:
    """The latest model, its splits and embeddings, and the latest bundle. One thread at a time."""

    def __init__(self) -> None:
        self._model: TrainedModel | None = None
        self._splits: tuple[str, Splits] | None = None
        self._store: tuple[str, EmbeddingStore] | None = None
        self._bundle: Bundle | None = None

    def clear(self) -> None:
        """Give the memory back."""
        self.__init__()  # type: ignore[misc]

    def model(self, home: Home, model_id: str, compute: Compute) -> TrainedModel:
        """As `load_model`."""
        if self._model is None or self._model.model_id != model_id:
            self._model = load_model(home, model_id, compute)
        return self._model

    def splits(self, home: Home, model_id: str) -> Splits:
        """Those that the model was trained with."""
        if self._splits is None or self._splits[0] != model_id:
            self._splits = model_id, Splits.load(folder_of(home.models, model_id) / "splits.parquet")
        return self._splits[1]

    def store(self, home: Home, model: TrainedModel) -> EmbeddingStore:
        """The model's embeddings, with what other processes have added meanwhile."""
        name = model.encoder.stored_as
        if self._store is None or self._store[0] != name:
            self._store = name, EmbeddingStore(home, name, model.encoder.dimensions)
        else:
            self._store[1].refresh()
        return self._store[1]

    def bundle(self, home: Home, bundle_id: str, model: TrainedModel, compute: Compute) -> Bundle:
        """As `load_bundle`. Raises `BundleError`."""
        if self._bundle is None or self._bundle.bundle_id != bundle_id:
            self._bundle = None
            self._bundle = load_bundle(home, compute, bundle_id, model=model)
        return self._bundle

    def keep(self, bundle: Bundle) -> None:
        """Remember a bundle that was just built: the next build continues it."""
        self._bundle = bundle
