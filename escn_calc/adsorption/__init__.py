"""Adsorption: slabs, adsorbates, sites, placements, energies and what can go wrong.

Imported from its modules; nothing here loads torch or pymatgen before it is needed.
"""
