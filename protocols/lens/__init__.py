"""The lens: any bytes to what a person or a program may read, of both families, and names back to bytes.

For viewing and for the bench. Whoever files values takes them from the protocol packages. `look` gives
JSON-ready fields; `tree`, `conversation`, `difference` and `composition` are imported where they are used.
"""

from protocols.lens.fields import Seen, look
from protocols.lens.places import CUT_SHORT, NO_START, NOTHING, ONLY_LEAD_IN

__all__ = ["CUT_SHORT", "NOTHING", "NO_START", "ONLY_LEAD_IN", "Seen", "look"]
