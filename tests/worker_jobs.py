"""Jobs side by side that note how they ended; ``python worker_jobs.py FOLDER`` starts two."""

import contextlib
import os
import sys
import time
from pathlib import Path

from landscape import console
from sharpmaml import workers


def job(place, tell):
    """Until it is interrupted; as training does, it takes its time to save."""
    place = Path(place)
    place.with_suffix(".pid").write_text(str(os.getpid()))
    try:
        for i in range(1200):
            time.sleep(0.05)
            tell(i, 1200)
    except KeyboardInterrupt:
        time.sleep(0.2)
        place.with_suffix(".saved").write_text("once")
        raise


def main(folder):
    """As the command lines do it."""
    places = [str(Path(folder) / str(i)) for i in range(3)]
    with console.progress_board(quiet=True) as board:
        workers.side_by_side(places, 2, job, lambda place: place, board)


if __name__ == "__main__":
    from cyclopts import App

    app = App()
    app.default(main)
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(console.run(app, sys.argv[1:]))
