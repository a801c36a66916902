"""What the portal is told about the site: one JSON file, named by ACCOUNTS_PORTAL_CONFIG.

======================  ================================================================================
``name``, ``support``   the site's name, and where its users find help
``secret_key``          Django's; any long text
``database``            path of the SQLite file
``time_zone``           in which a date ends
``client``              ``id``, ``secret`` and ``scopes`` of the one client that may ask
``sign_in_client``      ``id``, ``secret`` and ``scopes`` of the one client that signs people in here, the
                        ``redirect_uris`` and ``post_logout_redirect_uris`` to which they may come back
``users``               each ``name``, ``password`` and perhaps ``full_name``
``services``            each ``category``, ``name`` and perhaps ``summary``, ``hidden``, ``disabled``
``grants``              each ``user``, ``category``, ``service`` and perhaps ``role`` (USER), ``days`` (365)
======================  ================================================================================
"""

import json
import os
from pathlib import Path
from typing import Any


def read() -> dict[str, Any]:
    """Read the file."""
    return json.loads(Path(os.environ["ACCOUNTS_PORTAL_CONFIG"]).read_text())
