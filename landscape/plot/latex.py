"""Text as LaTeX source that pdfLaTeX sets, whatever characters are in it."""

from __future__ import annotations

import re
import unicodedata

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "ε": r"$\epsilon$",
    "‖": r"$\Vert$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "∞": r"$\infty$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "≠": r"$\ne$",
    "√": r"$\surd$",
    "∇": r"$\nabla$",
    "∂": r"$\partial$",
    "∈": r"$\in$",
    "∼": r"$\sim$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "°": r"$^{\circ}$",
    "½": r"$\frac{1}{2}$",
    "†": r"\dag{}",
    "⚠": r"\dag{}",
    "\u00a0": "~",
    "\u202f": r"\,",
    "\u2009": r"\,",
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ᵀ", "0123456789-+T")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₋₊", "0123456789-+")
_SHIFTED = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ᵀ]+)|([₀₁₂₃₄₅₆₇₈₉₋₊]+)")
_LIKE_LATIN = "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"  # Greek capitals that TeX has no command for
_LATIN = str.maketrans(_LIKE_LATIN + "ο", "ABEZHIKMNOPTYXo")


def latex_escape(text: str) -> str:
    r"""Text with LaTeX's special characters made harmless, and all others in ASCII.

    Greek, raised and lowered digits and the signs of mathematics become formulas, accents commands; what has
    no name in TeX becomes a question mark, because pdfLaTeX stops at it.

    >>> print(latex_escape("50% of R&D_{x}"), latex_escape("10⁻⁷ λ₁ ≥ Σé"))
    50\% of R\&D\_\{x\} 10$^{-7}$ $\lambda$$_{1}$ $\ge$ $\Sigma$\'{e}
    """
    parts = []
    at = 0
    for found in _SHIFTED.finditer(text):
        parts += [_character(c) for c in text[at : found.start()]]
        up, down = found.groups()
        parts.append(
            f"$^{{{up.translate(_RAISED)}}}$" if up else f"$_{{{down.translate(_LOWERED)}}}$"
        )
        at = found.end()
    return "".join([*parts, *(_character(c) for c in text[at:])])


_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0304": "=",
            "\u030c": "v", "\u0327": "c", "\u030a": "r"}  # fmt: skip


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character if character.isprintable() else " "
    name = unicodedata.name(character, "")
    greek = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", name)
    if greek and character not in _LIKE_LATIN + "ο":
        letter = greek[2].lower().replace("lamda", "lambda")
        if f" {letter} " in _GREEK:
            return rf"$\{letter if greek[1] == 'SMALL' else letter.capitalize()}$"
    plain = character.translate(_LATIN)
    if plain.isascii():
        return plain
    parts = list(unicodedata.normalize("NFKD", character))
    base, marks = parts[0], parts[1:]
    if base.isascii() and base.isprintable() and all(mark in _ACCENTS for mark in marks):
        text = latex_escape(base)
        for mark in marks:
            text = rf"\{_ACCENTS[mark]}{{{text}}}"
        return text
    return _LETTERS.get(character, "?")


_LETTERS = {
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}
_GREEK = (
    " alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon "
    "phi chi psi omega "
)
