"""Radius graphs of periodic structures: search, the cap of the nearest neighbours, and its tie rule."""

from escn_calc.graph.radius_graph import RadiusGraph, radius_graph

__all__ = ["RadiusGraph", "radius_graph"]
