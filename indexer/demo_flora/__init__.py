"""An invented flora, drawn: herbarium sheets and field photos of plants that do not exist.

It is what a first run works on, a fixture for tests and a controlled benchmark. It is no evidence of how
well real plants are told apart.
"""

from indexer.demo_flora.contact import draw_contact_sheet
from indexer.demo_flora.draw import FloraSummary, draw_flora

__all__ = ["FloraSummary", "draw_contact_sheet", "draw_flora"]
