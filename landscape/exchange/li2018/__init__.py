"""The files and conventions of tomgoldstein/loss-landscape, the code of Li et al. (2018).

Surface files need no torch; directions do, and are loaded when they are first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "directions": ["read_directions", "write_directions"],
        "draws": ["draw_directions"],
        "plane": ["ReferencePlane"],
        "surfaces": ["read_surface", "write_surface"],
    },
)

if TYPE_CHECKING:
    from landscape.exchange.li2018.directions import read_directions, write_directions
    from landscape.exchange.li2018.draws import draw_directions
    from landscape.exchange.li2018.plane import ReferencePlane
    from landscape.exchange.li2018.surfaces import read_surface, write_surface
