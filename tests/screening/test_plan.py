"""The plan: what is relaxed, how it is named, and what is refused before anything is computed."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from ase.io import write

from escn_calc.errors import InputError
from escn_calc.screening.model import ModelFacts, facts_of, model_of
from escn_calc.screening.plan import Plan, make_plan
from escn_calc.screening.relaxing import batches
from escn_calc.screening.tasks import structure_digest
from tests.screening.campaigns import campaign

FACTS = ModelFacts(
    identity={"name": "toy", "sha256": "a" * 64},
    name="toy",
    sha256="a" * 64,
    energy_kind="total",
    energy_reference="isolated atoms",
    citation="",
    not_for="",
    elements=None,
    refuses_others=False,
    cutoff=6.0,
    has_forces=True,
    has_stress=True,
    knows_what_is_familiar=False,
)


@pytest.fixture
def plan(tmp_path):
    def plan(facts: ModelFacts = FACTS, relaxed: dict[str, Atoms] | None = None, **changes) -> Plan:
        return make_plan(campaign(tmp_path, **changes), facts, relaxed or {})

    return plan


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Plan:
    """With relaxed lattices."""
    return make_plan(campaign(tmp_path_factory.mktemp("whole"), lattice=None), FACTS, {})


def test_stages(whole):
    assert whole.counts == {"bulk": 2, "gas": 2, "slab": 2, "adslab": 16}
    assert [[task.kind for task in stage][:3] for stage in whole.stages] == [
        ["bulk", "bulk"],
        ["gas", "gas", "slab"],
        ["adslab", "adslab", "adslab"],
    ]
    assert [task.name for task in whole.stages[1]] == ["H2", "H2O", "Cu(111)", "Pt(111)"]
    assert {task.name for task in whole.stages[2] if task.labels.system == ("Pt(111)", "O", None)} == {
        f"Pt(111) O {site}" for site in ("ontop", "bridge", "fcc", "hcp")
    }
    assert whole.systems[("Cu(111)", "H", None)] == 4
    assert [task.settings.cell for task in whole.tasks if task.settings.cell != "fixed"] == ["full", "full"]


def test_keys_name_content(whole, plan):
    keys = {task.key for task in whole.tasks}
    assert len(keys) == len(whole.tasks)
    assert all(re.fullmatch(r"(bulk|gas|slab|adslab)-[0-9a-f]{64}", key) for key in keys)
    again = {task.key for task in plan(lattice=None).tasks}
    assert again == keys
    gas = {task.key for task in whole.tasks if task.kind == "gas"}
    more = {task.key for task in plan(adsorbates=["H", "O", "OH"]).tasks}
    assert keys - more == {task.key for task in whole.tasks if task.kind == "bulk"}  # those of fixed lattices
    assert gas <= more and len(more - keys) == 8
    small = {"bulks": ["Cu"], "adsorbates": ["H"]}
    changed = (
        plan(relaxation={"fmax": 0.04}, **small),
        plan(relaxation={"steps": 299}, **small),
        plan(replace(FACTS, identity={"name": "toy", "sha256": "b" * 64}), **small),
    )
    assert all(keys.isdisjoint(task.key for task in other.tasks) for other in changed)


def test_what_belongs_to_a_structure():
    atoms = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    digest = structure_digest(atoms)
    moved = atoms.copy()
    moved.positions[0, 0] += 4e-7
    assert structure_digest(moved) == digest
    moved.positions[0, 0] += 2e-6
    constrained = atoms.copy()
    constrained.set_constraint(FixAtoms([0]))
    larger, other, open_ = atoms.copy(), atoms.copy(), atoms.copy()
    larger.cell[2, 2] += 1e-4
    other.numbers[1] = 78
    open_.pbc = False
    changed = [moved, constrained, larger, other, open_]
    assert len({digest, *map(structure_digest, changed)}) == 6


def test_slabs_have_the_relaxed_lattice(whole, plan):
    copper = whole.stages[0][0]
    relaxed = bulk("Cu", a=4.0, cubic=True)
    relaxed.positions += 1.0
    found = plan(relaxed={copper.key: relaxed}, lattice=None)
    before, after = (next(task for task in p.tasks if task.name == "Cu(111)") for p in (whole, found))
    scale = 4.0 / copper.atoms.cell.lengths()[0]
    assert after.atoms.cell.lengths()[0] == pytest.approx(scale * before.atoms.cell.lengths()[0])
    assert found.counts == whole.counts
    platinum = [{task.key for task in p.tasks if task.labels.bulk == "Pt"} for p in (whole, found)]
    assert platinum[0] == platinum[1]
    assert found.bulks == whole.bulks


def test_slabs_from_files(plan, tmp_path):
    slab = fcc111("Al", (1, 1, 3), vacuum=8.0, periodic=True)
    slab.set_constraint(FixAtoms([0]))
    slab.info.clear()
    write(tmp_path / "mine.xyz", slab)
    found = plan(bulks=None, lattice=None, surfaces=None, slabs="mine.xyz")
    assert found.counts == {"bulk": 0, "gas": 2, "slab": 1, "adslab": 8}
    task = found.stages[1][-1]
    assert (task.name, task.labels.miller, task.labels.bulk) == ("mine", None, "")
    np.testing.assert_array_equal(task.atoms.constraints[0].index, [0])


def test_several_molecules(plan):
    surfaces = {"facets": [111], "supercell": [2, 2], "layers": 3, "vacuum": 10}
    found = plan(
        bulks=["Cu"], surfaces=surfaces, adsorbates=["O"], placements={"coverage": [None, 0.5]}, relaxation={"steps": 5}
    )
    assert {system[2] for system in found.systems} == {None, 0.5}
    dense = [task for task in found.stages[-1] if task.labels.coverage == 0.5]
    assert all([one.name for one in task.labels.species] == ["O", "O"] for task in dense)
    assert dense[0].name.startswith("Cu(111) O 0.5 ML ")
    together = plan(bulks=["Cu"], surfaces=surfaces, adsorbates=[{"source": ["CO", "O"]}])
    task = together.stages[-1][0]
    assert task.labels.adsorbate == "CO+O" and [one.name for one in task.labels.species] == ["CO", "O"]
    assert "".join(task.atoms.symbols[task.atoms.get_tags() == 2]) in ("COO", "OCO")


def test_adsorption_energies_need_neither_slabs_nor_gases(plan):
    found = plan(replace(FACTS, energy_kind="adsorption"), references="oc20")
    assert found.counts == {"bulk": 0, "gas": 0, "slab": 0, "adslab": 16}


ADSORPTION = replace(FACTS, energy_kind="adsorption")
REFUSED = {
    "unknown adsorbate": (FACTS, {"adsorbates": ["H", "Xyz"]}, r":19: adsorbates\[1\]: .*Xyz"),
    "unknown bulk": (FACTS, {"bulks": ["Cu", "Qx"]}, r":7: bulks\[1\]: bulk 'Qx' is neither a file nor"),
    "unknown facet": (
        FACTS,
        {"surfaces": {"facets": ["1x1"]}},
        r":11: surfaces\.facets\[0\]: facet '1x1' is not",
    ),
    "thin slab": (FACTS, {"surfaces": {"facets": ["111"], "layers": 2}}, r":11: surfaces\.facets\[0\]: .*layers"),
    "thin vacuum": (
        FACTS,
        {"surfaces": {"facets": ["111"], "vacuum": 3}},
        r":11: surfaces\.facets\[0\]: Cu\(111\).*vacuum",
    ),
    "no room for the adsorbate": (
        FACTS,
        {"surfaces": {"facets": ["111"], "vacuum": 6.5}},
        r"adsorbates\[0\]: Cu\(111\) H ontop: .* of vacuum .* raise the vacuum by at least",
    ),
    "adsorbate larger than the cell": (
        FACTS,
        {"adsorbates": ["H", "HCOO"]},
        r":19: adsorbates\[1\]: Cu\(111\): CHO2 is too large for the cell: .* take a larger supercell or minimum_width",
    ),
    "bulk twice": (FACTS, {"bulks": ["Cu", "Cu"]}, r":7: bulks\[1\]: Cu is there already, from line 6"),
    "adsorbate twice": (FACTS, {"adsorbates": ["H", "*H"]}, r"adsorbates\[1\]: H is there already, from line 18"),
    "no forces": (replace(FACTS, has_forces=False), {}, "toy has no forces to relax with; set forces: gradient"),
    "unknown kind": (replace(FACTS, energy_kind="unknown"), {}, "not known whether toy returns total or adsorption"),
    "no stress": (
        replace(FACTS, has_stress=False),
        {"lattice": "full"},
        r":8: lattice: toy has no stress, so the lattice of Cu cannot relax; set lattice: fixed",
    ),
    "no reference": (
        FACTS,
        {"references": {"H": -1.0}},
        r"adsorbates\[1\]: the reference scheme 'own' has no reference for O",
    ),
    "unknown element": (
        replace(FACTS, elements=("Cu", "H", "O"), refuses_others=True),
        {},
        r"Pt\(111\) contains Pt, which toy does not know; it knows Cu, H, O",
    ),
    "bulk of an adsorption model": (
        ADSORPTION,
        {"references": "oc20", "lattice": "full"},
        r":8: lattice: a bare bulk has no energy",
    ),
    "unstated references": (
        ADSORPTION,
        {},
        "references: is missing, but toy returns adsorption energies.*oc20 or molecules",
    ),
    "gas references": (
        ADSORPTION,
        {"references": {"H": -1.0, "O": "H2O - H2"}},
        "references: is {.*}, but toy returns adsorption energies, from which nothing can be subtracted",
    ),
}


@pytest.mark.parametrize(("facts", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(plan, facts, changes, message):
    with pytest.raises(InputError, match=message):
        plan(facts, **changes)


def test_unseen_elements_are_noted(plan):
    found = plan(replace(FACTS, elements=("Cu", "H", "O"), not_for="bulk oxides"))
    assert found.notes == (
        "Pt did not occur in the training of toy: do not trust these energies",
        "toy is not for bulk oxides",
    )


CALCULATORS = {
    "no module": ({"factory": "no_such_module:EMT"}, "'no_such_module:EMT' cannot be imported"),
    "no callable": ({"factory": "ase.calculators.emt:EMTT"}, "'ase.calculators.emt:EMTT' cannot be imported"),
    "arguments": (
        {"factory": "tests.screening.calculators:not_a_calculator", "arguments": {"x": 1}},
        "does not take these arguments: got an unexpected keyword argument 'x'",
    ),
    "no calculator": ({"factory": "tests.screening.calculators:not_a_calculator"}, "returned 0; it must be an ASE"),
    "failure": ({"factory": "tests.screening.calculators:broken"}, "failed: RuntimeError: no licence"),
}


@pytest.mark.parametrize(("section", "message"), CALCULATORS.values(), ids=CALCULATORS)
def test_calculators_that_cannot_be_made(tmp_path, section, message):
    with pytest.raises(InputError, match=message):
        facts_of(model_of(campaign(tmp_path, calculator={"energy_kind": "total", **section})))


def test_facts_of_models(tmp_path):
    shipped = facts_of(model_of(campaign(tmp_path, calculator=None, model={"forces": "gradient"})))
    assert shipped.energy_kind == "total" and shipped.has_stress and len(shipped.sha256) == 64
    assert shipped.identity["dtype"] == "float32"
    emt = {"factory": "ase.calculators.emt:EMT", "arguments": {"asap_cutoff": True}, "energy_kind": "total"}
    calculator = facts_of(model_of(campaign(tmp_path, calculator=emt)))
    assert calculator.sha256 is None and calculator.has_stress and calculator.cutoff is None
    assert calculator.identity["arguments"] == {"asap_cutoff": True} and calculator.identity["version"]


def test_batches(whole):
    def sizes(together: int | None) -> list[int]:
        return [len(batch) for batch in batches(whole.tasks, together)]

    assert sizes(4) == [1, 1, 2, 2, 4, 4, 4, 4]
    assert sizes(None) == [1, 1, 2, 2, 16]
    assert [task.key for batch in batches(whole.tasks, 3) for task in batch] == [task.key for task in whole.tasks]
