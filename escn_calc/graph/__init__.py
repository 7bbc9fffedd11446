"""Radius graphs of periodic structures: search, reuse with a skin, the cap of the nearest neighbours, its tie rule."""

from escn_calc.graph.radius_graph import RadiusGraph, radius_graph
from escn_calc.graph.search import search_pairs
from escn_calc.graph.skin import SkinSearch

__all__ = ["RadiusGraph", "SkinSearch", "radius_graph", "search_pairs"]
