"""Run by tests as a process: the real server over the small collection, with the stand-in for the network."""

import importlib.util
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from app.serve import serve
from app.serving import open_collection
from app.settings import Settings
from models.home import Home


def main() -> None:
    """Serve with the settings in the first argument; the address goes to standard output."""
    specification = importlib.util.spec_from_file_location("small", Path(__file__).with_name("conftest.py"))
    assert specification is not None
    assert specification.loader is not None
    small = importlib.util.module_from_spec(specification)
    sys.modules["small"] = small
    specification.loader.exec_module(small)
    settings = Settings(**json.loads(sys.argv[1]))
    home = Home(settings.home)
    identifier = small.fake_identifier(home)

    def announce(address: str) -> None:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()

    serve(settings, announce, load=lambda given: small.serving_with(identifier, given, open_collection(home)))


if __name__ == "__main__":
    main()
