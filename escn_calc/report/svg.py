"""Matplotlib figures as SVG for the inside of a page: text stays text, points say what they are."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
PIXELS_PER_POINT = 96 / 72

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def as_svg(figure: Figure, name: str, words: str, tips: Mapping[str, Sequence[str]]) -> str:
    """Turn a figure into an ``svg`` element.

    Parameters
    ----------
    figure : Figure
        The figure.
    name : str
        Unique on the page, so that no two figures share an id.
    words : str
        What it shows, for those who cannot see it.
    tips : mapping
        For the gid of a scatter or of a marker-only line, a text for each of its points, in their order, shown where
        the pointer rests.
    """
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(text.getvalue())
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for group in root.iter(f"{{{SVG}}}g"):
        if group.get("id") in tips:
            _add_tips(group, tips[str(group.get("id"))])
    _drop_unused_ids(root)
    for side in ("width", "height"):
        root.set(side, f"{float(root.attrib[side].removesuffix('pt')) * PIXELS_PER_POINT:.0f}")
    root.attrib.update({"class": "plot", "role": "img", "aria-label": words})
    return ElementTree.tostring(root, encoding="unicode")


def _add_tips(group: ElementTree.Element, tips: Sequence[str]) -> None:
    points = list(group.iter(f"{{{SVG}}}use"))
    assert len(points) == len(tips), "every point is drawn, each by one element"
    for point, tip in zip(points, tips, strict=True):
        ElementTree.SubElement(point, f"{{{SVG}}}title").text = tip


def _drop_unused_ids(root: ElementTree.Element) -> None:
    values = " ".join(value for element in root.iter() for key, value in element.attrib.items() if key != "id")
    used = set(re.findall(r"(?:url\(|^|\s)#([\w-]+)", values))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
