"""The colours of figures on a dark page: each light one and what stands for it there.

Chosen so that the six subjects keep their order of hues and stay apart with every common colour vision
deficiency, and so that text and lines keep a contrast of 4.5 to 1 or more on ``#1d2126``.
"""

from __future__ import annotations

from landscape.plot import style

DARK = {
    style.INK: "#e6e9ed",
    style.MUTED: "#9aa4af",
    style.GRID: "#3c444d",
    "#eceff2": "#2b3138",  # grid lines of flat figures
    "#0072B2": "#4aa8e0",
    "#D55E00": "#ff8a3d",
    "#009E73": "#2cc495",
    "#CC79A7": "#e3a1c6",
    "#E69F00": "#ffc04d",
    "#56B4E9": "#9ad4f5",
}
"""Light colour -> dark colour, one to one."""
