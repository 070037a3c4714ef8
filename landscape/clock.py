"""The time that is written into files; a build that must repeat to the byte may set it."""

from __future__ import annotations

import os
from datetime import UTC, datetime


def created_at() -> str:
    """Now, in UTC, to the second; or the time in the environment variable ``SOURCE_DATE_EPOCH``.

    That variable, seconds since 1970, is the convention of reproducible-builds.org: with it set, the same
    command writes the same bytes whenever it runs. A value that is no such number is ignored.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(text), UTC) if text.isdecimal() else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")
