"""Cases of anomalies made up by hand: a first frame, and a last one that tells what has happened."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

from tests.adsorption.anomaly_cases import Case
from tests.adsorption.anomaly_starts import adsorbate, slab

TOP, BRIDGE, FCC, HCP, HOLLOW = (0, 0), (0.5, 0), (1 / 3, 1 / 3), (2 / 3, 2 / 3), (0.5, 0.5)
UP = np.array([0.0, 0.0, 1.0])
ALONG = np.array([1.17, 0.0, 0.0])


def on(surface: Atoms, *items: tuple) -> Atoms:
    """Adsorbates on a surface: name, place in units of its smallest cell, height in Å, angle about z in degrees."""
    atoms = surface.copy()
    top = surface.positions[:, 2].max()
    (origin,) = surface.positions[surface.positions[:, 2].argmax()][None]
    for name, place, height, *angle in items:
        group = adsorbate(name)
        group.rotate(*(angle or [0.0]), "z")
        group.positions += [*(origin[:2] + np.array(place) @ unit_cell(surface)), top + height]
        group.set_tags(2)
        atoms += group
    return atoms


def unit_cell(surface: Atoms) -> np.ndarray:
    """Smallest cell of a (111) or (100) surface, from the distance of its neighbours."""
    step = surface.get_all_distances(mic=True)[0, 1:].min()
    first, second = (vector / np.linalg.norm(vector) for vector in surface.cell[:2, :2])
    return step * np.array([first, second])


def far(surface: Atoms, u: float, v: float, height: float = 0.0) -> np.ndarray:
    """Vector (3,) from units of the smallest cell, and a height."""
    return np.array([*(np.array([u, v]) @ unit_cell(surface)), height])


def moved(atoms: Atoms, indices: Sequence[int] | slice, by: Sequence[float]) -> Atoms:
    """Copy with some atoms shifted; negative indices count from the end."""
    copy = atoms.copy()
    copy.positions[indices] += by
    return copy


def to(atoms: Atoms, **targets: Sequence[float]) -> Atoms:
    """Copy with the last atoms (named ``a1`` for the last, ``a2`` for the one before) moved to places."""
    copy = atoms.copy()
    for name, place in targets.items():
        copy.positions[-int(name[1:])] = place
    return copy


def turned(atoms: Atoms, indices: Sequence[int], about: int, angle: float, axis: Sequence[float] = UP) -> Atoms:
    """Copy with some atoms turned about an axis through one of them."""
    copy = atoms.copy()
    axis = np.array(axis) / np.linalg.norm(axis)
    centre = atoms.positions[about]
    rotation = Rotation.from_rotvec(np.radians(angle) * axis)
    copy.positions[indices] = rotation.apply(atoms.positions[indices] - centre) + centre
    return copy


def shaken(atoms: Atoms, sigma: float = 0.03, seed: int = 0) -> Atoms:
    """Copy with normal displacements of the atoms that are not fixed."""
    copy = atoms.copy()
    copy.rattle(sigma, seed=seed)
    return copy


def wrapped(atoms: Atoms) -> Atoms:
    """Copy with all atoms inside the cell."""
    copy = atoms.copy()
    copy.wrap()
    return copy


CU, CU100, PT = slab("Cu", size=(3, 3, 3)), slab("Cu", "100", (3, 3, 3)), slab("Pt", size=(3, 3, 3))
AU, PD, PD100 = slab("Au", size=(3, 3, 3)), slab("Pd", size=(3, 3, 4)), slab("Pd", "100", (2, 2, 4))
TIP = CU.positions[:, 2].max()


def unharmed() -> dict[str, tuple[Atoms, Atoms]]:
    """Whatever moves here is no anomaly."""
    co = on(CU, ("CO", TOP, 1.85))
    methyl = on(CU, ("CH3", FCC, 1.6))
    methoxy = on(CU, ("CH3O", FCC, 1.3))
    methanol = on(CU, ("CH3OH", TOP, 2.2))
    hydroxyl = on(PT, ("OH", TOP, 2.0))
    water = on(PT, ("H2O flat", TOP, 2.35))
    ammonia = on(CU, ("NH3", TOP, 2.1))
    formate = on(slab("Cu", size=(4, 4, 3)), ("HCOO", (-0.1, 0), 1.95))
    peroxide = on(PT, ("O2", (0.25, 0), 1.9))
    hydrogen = on(PD, ("H2", (-0.13, 0), 1.7))
    nine = on(PD, *(("H", (i + 1 / 3, j + 1 / 3), 0.85) for i in range(3) for j in range(3)))
    corner = on(CU, ("CHO", (-0.1, -0.1), 1.8))
    single = on(slab("Cu", size=(1, 1, 4)), ("CO", TOP, 1.85))
    open_above = co.copy()
    open_above.pbc = (True, True, False)
    rumpled = on(AU, ("O", FCC, 1.2))
    up = [atom for atom in range(18, 27) if atom % 2]
    top_layer = slice(18, 27)
    deep = on(CU100, ("O", HOLLOW, 0.8))
    vacant = CU.copy()
    del vacant[22]
    in_vacancy = on(vacant, ("H", TOP, 1.6))
    in_vacancy.positions[-1] = CU.positions[22] + [0, 0, 0.2]
    steps = slab("Cu", "211", (3, 2, 3))
    at_step = on(steps, ("O", (0, 0), 0.0))
    at_step.positions[-1] = [3.0, 2.55, steps.positions[:, 2].max() + 0.4]
    return {
        "CO leans by 15 degrees": (co, shaken(turned(co, [-1], -2, 15, (1, 0, 0)))),
        "CO leans by 50 degrees": (co, shaken(turned(co, [-1], -2, 50, (1, 1, 0)))),
        "CO comes nearer": (on(CU, ("CO", TOP, 2.3)), shaken(co)),
        "methyl turns by 60 degrees": (methyl, shaken(turned(methyl, [-1, -2, -3], -4, 60))),
        "methyl of methoxy turns by 60 degrees": (methoxy, shaken(turned(methoxy, [-1, -2, -3], -4, 60))),
        "hydroxyl of methanol turns by 150 degrees": (
            methanol,
            shaken(turned(methanol, [-1], -6, 150, methanol.positions[-5] - methanol.positions[-6])),
        ),
        "hydroxyl swings by 120 degrees": (hydroxyl, shaken(turned(hydroxyl, [-1], -2, 120))),
        "water turns by 90 degrees": (water, shaken(turned(water, [-1, -2], -3, 90))),
        "water stands up": (water, shaken(turned(water, [-1, -2], -3, 50, (1, 0, 0)))),
        "ammonia turns by 60 degrees": (ammonia, shaken(turned(ammonia, [-1, -2, -3], -4, 60))),
        "formate turns about its middle": (formate, shaken(_turned_formate(formate))),
        "O2 lengthens to 1.48": (peroxide, shaken(moved(peroxide, [-1], (0.18, 0, 0)), 0.01)),
        "H2 lengthens to 0.95": (hydrogen, shaken(moved(hydrogen, [-1], (0.2, 0, 0)), 0.01)),
        "a monolayer of hydrogen shakes": (nine, shaken(nine, 0.08)),
        "everything drifts": (shaken(co), moved(co, slice(None), (0.9, 0.6, 0.3))),
        "everything is one cell farther": (co, shaken(moved(co, slice(None), co.cell[0] + co.cell[1]))),
        "a molecule is cut by the boundary": (corner, wrapped(shaken(corner))),
        "the adsorbate is one cell farther": (corner, shaken(moved(corner, [-1, -2, -3], corner.cell[1]))),
        "wrapped along z": (co, wrapped(moved(co, slice(None), (0, 0, 9.0)))),
        "the smallest cell": (single, shaken(single)),
        "not periodic along z": (open_above, shaken(open_above)),
        "the surface rumples by 0.25": (rumpled, shaken(moved(moved(rumpled, up, (0, 0, 0.25)), [-1], (0, 0, 0.1)))),
        "oxygen lifts a gold atom by 0.45": (
            rumpled,
            shaken(moved(moved(rumpled, [18], (0, 0, 0.45)), [-1], (0, 0, 0.2))),
        ),
        "the layer relaxes by 0.3": (rumpled, shaken(moved(moved(rumpled, top_layer, (0, 0, 0.3)), [-1], (0, 0, 0.3)))),
        "everything shakes": (co, shaken(co, 0.12)),
        "oxygen sinks into the hollow": (deep, shaken(moved(deep, [-1], (0, 0, -0.65)), 0.02)),
        "hydrogen falls into a vacancy": (in_vacancy, shaken(moved(in_vacancy, [-1], (0, 0, -1.3)), 0.02)),
        "oxygen at the foot of a step": (at_step, shaken(at_step)),
        "the clean slab shakes": (PT, shaken(PT, 0.1)),
        "methane alone turns": _gas("CH4", lambda gas: turned(gas, [1, 2, 3, 4], 0, 70, (1, 2, 3))),
        "a small rigid slide": (methyl, shaken(moved(methyl, [-1, -2, -3, -4], (0.25, 0.2, 0)))),
    }


def _turned_formate(formate: Atoms) -> Atoms:
    middle = formate.copy()
    middle.append("H")
    middle.positions[-1] = formate.positions[[-4, -2]].mean(axis=0)
    turn = turned(middle, [-2, -3, -4, -5], -1, 60)
    return turn[:-1]


def _gas(name: str, change) -> tuple[Atoms, Atoms]:
    gas = molecule(name, cell=[12, 12, 12], pbc=True)
    gas.center()
    gas = Atoms(gas.numbers, gas.positions, cell=gas.cell, pbc=True, tags=[2] * len(gas))
    return gas, change(gas)


def physisorbed() -> dict[str, tuple[Atoms, Atoms]]:
    """Intact molecules near the slab without a bond to it."""
    dioxide = on(CU, ("CO2", TOP, 3.2))
    methane = on(PT, ("CH4", FCC, 3.6))
    water = on(AU, ("H2O", TOP, 3.3))
    nitrogen = on(CU, ("N2 flat", BRIDGE, 3.5))
    layers = on(PT, ("H2O flat", TOP, 2.35), ("H2O down", (1.0, 0.0), 3.4))
    bound = on(CU, ("CO2", TOP, 2.0))
    return {
        "carbon dioxide glides": (dioxide, shaken(moved(dioxide, [-1, -2, -3], (1.5, 0.4, 0)))),
        "methane turns": (methane, shaken(turned(methane, [-1, -2, -3, -4], -5, 80, (1, 0, 1)))),
        "water rises by 0.2": (water, shaken(moved(water, [-1, -2, -3], (0, 0, 0.2)))),
        "nitrogen lies at 3.5": (nitrogen, shaken(nitrogen)),
        "carbon dioxide moves away to 3.3": (bound, shaken(moved(bound, [-1, -2, -3], (0, 0, 1.3)))),
        "water on water": (layers, shaken(layers)),
    }


def desorbed() -> dict[str, tuple[Atoms, Atoms]]:
    """Molecules that have left."""
    co, two = on(CU, ("CO", TOP, 1.85)), on(CU, ("CO", TOP, 1.85), ("CO", (1.5, 1.5), 1.6))
    hydrogen = on(PD, ("H", FCC, 0.85), ("H", (4 / 3, 1 / 3), 0.85))
    methyl = on(CU, ("CH3", FCC, 1.6), ("H", (4 / 3, 1 / 3), 1.0))
    single = on(slab("Cu", size=(1, 1, 4)), ("CO", TOP, 1.85))
    oxygen = on(AU, ("O2", (0.25, 0), 2.1))
    open_above = on(CU, ("CO2", TOP, 2.2))
    open_above.pbc = (True, True, False)
    high = PD.positions[:, 2].max() + 6.0
    return {
        "CO is 4.7 away": (co, shaken(moved(co, [-1, -2], (0, 0, 2.9)))),
        "CO is 7 away": (co, shaken(moved(co, [-1, -2], (0.5, 0, 5.2)))),
        "O2 leaves": (oxygen, shaken(moved(oxygen, [-1, -2], (0, 0, 3.2)))),
        "one of two CO leaves": (two, shaken(moved(two, [-1, -2], (0, 0, 4.5)))),
        "both CO leave": (two, shaken(moved(two, [-1, -2, -3, -4], (0, 0, 4.5)))),
        "CO2 leaves, not periodic along z": (open_above, shaken(moved(open_above, [-1, -2, -3], (0, 0, 30.0)))),
        "CO sits below the slab": (co, shaken(to(co, a2=_below(CU, 1.9), a1=_below(CU, 3.05)))),
        "CO leaves and is wrapped": (co, wrapped(moved(moved(co, slice(None), 11.0 * UP), [-1, -2], 4.0 * UP))),
        "CO leaves the smallest cell": (single, shaken(moved(single, [-1, -2], (0, 0, 4.0)))),
        "oxygen atom leaves": (on(CU, ("O", FCC, 1.2)), moved(on(CU, ("O", FCC, 1.2)), [-1], (0, 0, 4.0))),
        "hydrogen recombines and leaves": (hydrogen, to(hydrogen, a1=(2.0, 1.0, high), a2=(2.0, 1.74, high))),
        "methane is formed and leaves": (methyl, _methane_above(methyl)),
        "everything drifts and CO leaves": (co, moved(moved(co, slice(None), (0.8, 0.3, 0.5)), [-1, -2], (0, 0, 3.5))),
    }


def _below(surface: Atoms, distance: float) -> np.ndarray:
    """Place below an atom of the lowest layer."""
    return surface.positions[surface.positions[:, 2].argmin()] - [0, 0, distance]


def _methane_above(methyl: Atoms) -> Atoms:
    above = methyl.copy()
    gas = molecule("CH4")
    above.positions[[-5, -4, -3, -2, -1]] = gas.positions + np.array([2.0, 1.5, TIP + 6.5])
    return above


def dissociated() -> dict[str, tuple[Atoms, Atoms]]:
    """Molecules that have come apart or reacted."""
    co, oxygen = on(CU, ("CO", TOP, 1.85)), on(PT, ("O2", (0.25, 0), 1.9))
    water, ammonia = on(PT, ("H2O flat", TOP, 2.2)), on(CU, ("NH3", TOP, 2.1))
    methyl, formate = on(PT, ("CH3", TOP, 2.1)), on(CU, ("HCOO", (-0.1, 0), 1.95))
    carboxyl, methanol = on(PT, ("COOH", TOP, 2.0)), on(CU, ("CH3OH", TOP, 2.2))
    nitrogen, hydrogen = on(PT, ("N2 flat", (-0.1, 0), 1.6)), on(PD, ("H2", (-0.13, 0), 1.5))
    both = on(CU, ("CO", TOP, 1.85), ("CO", (1.5, 1.5), 1.6))
    formyl = on(CU, ("CHO", TOP, 1.9))
    pair = on(PT, ("OH", TOP, 2.0, 0.0), ("OH", (1, 0), 2.0, 0.0))
    mixed = on(PT, ("H2O flat", TOP, 2.3), ("O", (1 + 1 / 3, 1 / 3), 1.2))
    oxidised = on(PT, ("CO", TOP, 1.85), ("O", (1 / 3, 4 / 3), 1.2))
    peak = PT.positions[:, 2].max()
    pd_peak = PD.positions[:, 2].max()
    height = co.positions[-2][2]
    gas, broken = _gas("H2O", lambda atoms: moved(atoms, [-1], (0, -2.0, 0)))
    return {
        "CO falls apart": (co, shaken(to(co, a1=co.positions[-2] + [2.2, 0.6, -0.7]))),
        "O2 falls apart": (oxygen, shaken(moved(oxygen, [-1], (1.4, 0, -0.6)))),
        "O2 falls apart and one O goes below": (oxygen, to(oxygen, a1=_octahedral(PT))),
        "water loses H": (water, shaken(moved(water, [-1], (-1.0, 0.6, -1.2)), 0.01)),
        "ammonia loses H": (ammonia, shaken(moved(ammonia, [-1], (-0.8, -0.9, -1.3)), 0.01)),
        "methyl loses H": (methyl, shaken(moved(methyl, [-1], (-0.9, -0.8, -1.4)), 0.01)),
        "methyl loses every H": (methyl, _scattered(methyl)),
        "formate becomes CO2 that leaves, and H": (formate, _formate_apart(formate)),
        "carboxyl becomes CO and OH": (carboxyl, moved(carboxyl, [-2, -1], (1.6, 0.3, -0.4))),
        "methanol loses H": (methanol, moved(methanol, [-1], (-1.1, 0, -1.1))),
        "N2 falls apart across the boundary": (
            nitrogen,
            wrapped(moved(moved(nitrogen, [-1], (1.1, 0, 0)), [-2], (-0.9, 0, 0))),
        ),
        "H2 falls apart, atoms 1.6 from each other": (hydrogen, moved(hydrogen, [-1], (0.85, 0, -0.2))),
        "H2 falls apart": (hydrogen, to(hydrogen, a1=(3.6, 0.8, pd_peak + 0.9), a2=(0.0, 1.6, pd_peak + 0.9))),
        "one of two CO falls apart": (both, moved(both, [-1], (2.3, 0.8, -1.2))),
        "CO falls apart and O leaves": (co, to(co, a1=co.positions[-2] + [0, 0, 6.0])),
        "H of formyl moves to O": (formyl, to(formyl, a2=formyl.positions[-1] + [0.3, 0, 0.92])),
        "two OH become H2O and O": (pair, _shared_hydrogen(pair)),
        "H2O and O become two OH": (mixed, to(mixed, a2=mixed.positions[-1] + [-0.5, 0.1, 0.85])),
        "CO and O become CO2": (
            oxidised,
            to(oxidised, a1=(2.8, 0, peak + 3.2), a2=(0.5, 0, peak + 3.2), a3=(1.65, 0, peak + 3.2)),
        ),
        "water in the gas loses H": (gas, broken),
        "CO is torn to 2.2": (co, to(co, a1=(co.positions[-2][0], co.positions[-2][1], height + 2.2))),
    }


def _octahedral(surface: Atoms) -> np.ndarray:
    """Octahedral hole below the surface layer of a (111) slab."""
    layers = np.unique(surface.positions[:, 2].round(2))
    place = surface.positions[-1] + far(surface, *FCC)
    return np.array([place[0], place[1], (layers[-1] + layers[-2]) / 2])


def _scattered(methyl: Atoms) -> Atoms:
    floor = methyl.positions[-4][2] - 1.0
    around = methyl.positions[-4] + np.array([[2.2, 0, 0], [-1.1, 1.9, 0], [-1.1, -1.9, 0]])
    around[:, 2] = floor
    return to(methyl, a3=around[0], a2=around[1], a1=around[2])


def _formate_apart(formate: Atoms) -> Atoms:
    apart = formate.copy()
    carbon = formate.positions[-3] + [0, 0, 5.0]
    apart.positions[-3] = carbon
    apart.positions[-4], apart.positions[-2] = carbon - ALONG, carbon + ALONG
    apart.positions[-1] = formate.positions[-3] + [0, 0, -1.5]
    return apart


def _shared_hydrogen(pair: Atoms) -> Atoms:
    after = pair.copy()
    other = pair.positions[-2]
    after.positions[-1] = other + np.array([0.76, 0.1, 0.58])
    after.positions[-3] = other + np.array([-0.76, 0.1, 0.58])
    return after


def below() -> dict[str, tuple[Atoms, Atoms]]:
    """Atoms that have gone below the surface."""
    hydrogen, carbon, nitrogen = on(PD, ("H", FCC, 0.85)), on(PD100, ("C", HOLLOW, 0.6)), on(PD, ("N", HCP, 1.1))
    oxygen = on(CU100, ("O", HOLLOW, 0.7))
    layers = np.unique(PD.positions[:, 2].round(2))
    tetrahedral = on(PD, ("H", HCP, 0.85))
    return {
        "hydrogen in the octahedral hole": (hydrogen, shaken(to(hydrogen, a1=_octahedral(PD)), 0.02)),
        "hydrogen in the tetrahedral hole": (
            tetrahedral,
            to(tetrahedral, a1=[*tetrahedral.positions[-1][:2], layers[-1] - 0.57]),
        ),
        "carbon below a surface atom": (carbon, to(carbon, a1=PD100.positions[-1] - [0, 0, 1.95])),
        "nitrogen in the middle of the slab": (nitrogen, to(nitrogen, a1=_octahedral(PD[:27]))),
        "oxygen below the hollow": (oxygen, _opened(to(oxygen, a1=CU100.positions[22] - [0, 0, 1.85]))),
    }


def _opened(atoms: Atoms) -> Atoms:
    """Copy in which the surface layer has made room."""
    return moved(atoms, [22], (0, 0, 0.35))


def rebuilt() -> dict[str, tuple[Atoms, Atoms]]:
    """Slabs that have changed."""
    oxygen, gold = on(CU, ("O", FCC, 1.2)), on(AU, ("CO", TOP, 2.0))
    square = on(slab("Au", "100", (3, 3, 3)), ("CO", TOP, 2.0))
    row = slab("Pt", "110", (2, 2, 4))
    stacked = on(CU, ("H", FCC, 1.0))
    lifted = moved(gold, [18, -1, -2], (0, 0, 2.3))
    adatom = moved(oxygen, [18], far(CU, 4 / 3, 4 / 3, 2.05))
    return {
        "a surface atom becomes an adatom": (oxygen, shaken(adatom)),
        "CO pulls a gold atom out": (gold, shaken(lifted)),
        "the top layer slides to the other stacking": (
            stacked,
            moved(stacked, [*range(18, 27), -1], far(CU, 1 / 3, 1 / 3)),
        ),
        "the square layer becomes hexagonal": (square, _hexagonal(square)),
        "a row of the clean slab hops": (row, moved(row, [12, 14], (0.0, 2.1, 1.4))),
        "a top atom of the clean slab falls in": (PT, moved(PT, [20], (1.3, 0.8, -1.5))),
        "a slab atom rises by 0.9": (oxygen, moved(oxygen, [26], (0, 0, 0.9))),
    }


def _hexagonal(square: Atoms) -> Atoms:
    """Every second row of the surface layer shifted by half a neighbour distance."""
    step = unit_cell(square)[0]
    return moved(moved(square, [21, 22, 23], [*step * 0.5, 0.3]), [18, 19, 20, -1, -2], (0, 0, 0.1))


def migrated() -> dict[str, tuple[Atoms, Atoms]]:
    """Adsorbates that sit at another site than at the start."""
    co, oxygen, hydroxyl = on(CU, ("CO", TOP, 1.85)), on(CU, ("O", FCC, 1.2)), on(CU, ("OH", BRIDGE, 1.5))
    formate = on(slab("Cu", size=(4, 4, 3)), ("HCOO", (-0.1, 0), 1.95))
    square = on(PD100, ("H", TOP, 1.6))
    return {
        "CO from top to fcc": (co, shaken(moved(co, [-1, -2], far(CU, *FCC, -0.45)))),
        "O from fcc to hcp": (oxygen, shaken(moved(oxygen, [-1], far(CU, 1 / 3, 1 / 3)))),
        "O to the next fcc": (oxygen, shaken(moved(oxygen, [-1], far(CU, 1, 0)))),
        "O to the next fcc, across the boundary": (oxygen, wrapped(shaken(moved(oxygen, [-1], far(CU, -1, -1))))),
        "OH from bridge to fcc": (hydroxyl, moved(hydroxyl, [-1, -2], far(CU, -1 / 6, 1 / 3, -0.2))),
        "formate one row on": (formate, shaken(moved(formate, [-1, -2, -3, -4], far(CU, 0, 1)))),
        "H from top to bridge": (square, moved(square, [-1], far(PD100, 0.5, 0, -0.5))),
    }


def unfinished() -> list[Case]:
    """Relaxations that did not end well."""
    co = on(CU, ("CO", TOP, 1.85))
    crushed = moved(co, [-1], (0, 0, -0.75))
    return [
        Case("made: step limit", co, shaken(co), "step limit", 0.4),
        Case("made: interrupted", co, shaken(co), "interrupted", 0.9),
        Case("made: failed", co, shaken(co), "failed", 2.0),
        Case("made: atoms on top of each other", co, crushed, "step limit", 300.0),
        Case("made: a force beyond reason", co, moved(co, [-1], (0, 0, -0.4)), "stopped", 5.0e4),
        Case("made: stopped while leaving", co, moved(co, [-1, -2], (0, 0, 4.0)), "stopped", 0.2),
    ]


def made_cases() -> list[Case]:
    """All of them."""
    families = (unharmed, physisorbed, desorbed, dissociated, below, rebuilt, migrated)
    return [
        *(Case(f"made: {name}", *frames) for family in families for name, frames in family().items()),
        *unfinished(),
    ]
