"""Services that a test makes as it needs them, and that end with it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from models.home import Home

Service = Callable[..., TestClient]


@contextmanager
def services(home: Home) -> Iterator[Service]:
    """Makes services over one home that a test may change; what fails in them is an answer, as for other clients."""
    with ExitStack() as opened:

        def make(**given: object) -> TestClient:
            settings = Settings(home=home.root, device="cpu", worker=False, **given)
            return opened.enter_context(TestClient(create_app(settings), raise_server_exceptions=False))

        yield make
