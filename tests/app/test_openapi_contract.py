"""Every operation of the API, asked with what its description allows and with what it does not.

`VOUCHER_TEST_EXAMPLES` sets how many requests are made up for each; `make contract` takes more.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.main import create_app
from app.settings import Settings
from models.home import Home

EXAMPLES = int(os.environ.get("VOUCHER_TEST_EXAMPLES", "4"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

DEEP = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def api(trained_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    """The application over a trained network, on this machine and without keys, so that all of it can be reached."""
    home = tmp_path_factory.mktemp("contract") / "home"
    shutil.copytree(trained_home.root, home)
    app = create_app(Settings(home=home, device="cpu", access="open"))
    with TestClient(app, base_url="http://127.0.0.1:8000"):
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_breaks_the_service_or_gets_what_is_not_described(
    api: schemathesis.BaseSchema, mode: GenerationMode, subtests: pytest.Subtests
) -> None:
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:
        with subtests.test(operation.label):
            ask(operation, mode)


def ask(operation: Any, mode: GenerationMode) -> None:
    @DEEP
    @given(case=operation.as_strategy(generation_mode=mode))
    def once(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, base_url="http://127.0.0.1:8000")

    # What has no parameters and no body cannot be asked wrongly.
    with contextlib.suppress(Unsatisfiable):
        once()
