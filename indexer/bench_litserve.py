"""The same bundle behind LitServe with its batching, for comparison.

``python -m indexer.bench_litserve HOME DEVICE PORT MAX_BATCH WAIT_SECONDS``
"""

import sys
from pathlib import Path
from typing import Any

import litserve  # type: ignore[import-untyped]
import numpy as np

from models.compute import Compute, limit_threads
from models.cpu_cores import available_cores
from models.encoder import Encoded
from models.home import Home
from models.identifier import Identifier

_MOST_PIXELS = 50_000_000


class IdentifyApi(litserve.LitAPI):
    """Decode and preprocess a request, run the network on a batch, and answer each."""

    def __init__(self, home: str, device: str, *, max_batch_size: int, batch_timeout: float) -> None:
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout)
        self._home, self._device = home, device

    def setup(self, device: str) -> None:
        """Load the bundle, in the process that runs the network."""
        limit_threads(available_cores())
        self.identifier = Identifier.load(Home(Path(self._home)), Compute.resolve(self._device))

    # Without an annotation LitServe hands the form over; its own annotation is a web framework's.
    def decode_request(self, request) -> Any:  # type: ignore[no-untyped-def]
        """``(3, H, W)`` float32 of the photo in a form."""
        image = self.identifier.decode(request["photos"].file.read(), max_pixels=_MOST_PIXELS)
        return self.identifier.preprocess(image)

    def batch(self, inputs: list[Any]) -> Any:
        """``(N, 3, H, W)``."""
        return np.stack(inputs)

    def predict(self, x: Any) -> list[Any]:
        """Answers for ``(N, 3, H, W)``."""
        encoded = self.identifier.encode(x)
        rows = [slice(row, row + 1) for row in range(len(x))]
        return [self.identifier.answer(Encoded(encoded.logits[r], encoded.embeddings[r])) for r in rows]

    def unbatch(self, output: Any) -> Any:
        """The answers one by one."""
        return output

    def encode_response(self, output: Any) -> Any:
        """The names and probabilities."""
        return {
            "candidates": [{"name": c.species.scientific_name, "probability": c.probability} for c in output.candidates]
        }


if __name__ == "__main__":
    _home, _device, _port, _batch, _wait = sys.argv[1:]
    _api = IdentifyApi(_home, _device, max_batch_size=int(_batch), batch_timeout=float(_wait))
    _server = litserve.LitServer(_api, accelerator="cpu" if _device == "cpu" else "auto")
    _server.run(host="127.0.0.1", port=int(_port), generate_client_file=False, log_level="warning")
