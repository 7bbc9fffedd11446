"""Hessians, modes and free energies against formulas, against ASE's own vibrations, and against each other."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import add_adsorbate, fcc100, fcc111, molecule
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength
from ase.optimize import BFGS
from ase.vibrations import Vibrations as VibrationsOfASE
from ase.vibrations import VibrationsData

from escn_calc import ESCNCalculator
from escn_calc.constraints import free_indices
from escn_calc.errors import BatchError, CalculationError, InputError
from escn_calc.hessian import ASYMMETRY_WORTH_A_WARNING, AsymmetricHessianWarning, hessian
from escn_calc.vibrations import adsorbate_indices, vibrations
from tests.smooth import rattled_slab, write_smooth_model
from tests.toy_potential import ToyPotential

PLANCK = units._hbar * units.J * units.second
"""ħ in eV times ASE's unit of time."""


class Springs(Calculator):
    """E = uᵀ K u / 2 for the displacements u from a reference, F = -K u also where K is not symmetric."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, reference: Atoms, stiffness: np.ndarray) -> None:
        super().__init__()
        self.reference, self.stiffness = reference.positions.copy(), stiffness

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        moved = (atoms.positions - self.reference).ravel()
        forces = -(self.stiffness @ moved).reshape(-1, 3)
        self.results = {"energy": float(moved @ self.stiffness @ moved / 2), "forces": forces}


class Broken(EMT):
    """EMT whose force on the last atom is NaN once an atom has moved."""

    def __init__(self, property_missing: bool = False) -> None:
        super().__init__()
        self.property_missing, self.calls = property_missing, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if self.property_missing:
            raise PropertyNotImplementedError("forces")
        self.calls += 1
        super().calculate(atoms, properties, system_changes)
        if self.calls > 1:
            self.results["forces"][-1] = np.nan


def stiffness_of(size: int, eigenvalues: np.ndarray | None = None) -> np.ndarray:
    """Return a symmetric (size, size) matrix with the given eigenvalues, by default from 1 to 9 eV/Å²."""
    vectors, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(size, size)))
    return vectors @ np.diag(np.linspace(1, 9, size) if eigenvalues is None else eigenvalues) @ vectors.T


@pytest.fixture
def water() -> Atoms:
    return molecule("H2O")


@pytest.fixture(scope="module")
def adsorbed() -> Atoms:
    """N on Cu(111), relaxed with EMT, tagged as in OC20."""
    atoms = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    add_adsorbate(atoms, "N", 1.0, "fcc")
    atoms.set_tags([0] * 4 + [1] * 4 + [2])
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 0))
    atoms.info.clear()
    atoms.calc = EMT()
    with BFGS(atoms, logfile=None) as search:
        search.run(fmax=1e-3, steps=200)
    atoms.calc = None
    return atoms


def angular_energy(stiffness: float, mass: float) -> float:
    """ħ sqrt(k / m) in eV, for eV/Å² and amu."""
    return PLANCK * np.sqrt(stiffness / mass)


def test_hessian_of_springs_is_their_stiffness(water):
    stiffness = stiffness_of(9)
    np.testing.assert_allclose(hessian(water, Springs(water, stiffness)), stiffness, atol=1e-10)
    some = np.ix_([6, 7, 8, 0, 1, 2], [6, 7, 8, 0, 1, 2])
    found = hessian(water, Springs(water, stiffness), [2, 0], displacement=0.05)
    np.testing.assert_allclose(found, stiffness[some], atol=1e-10)


def test_error_is_of_second_order_in_the_displacement(adsorbed):
    coarse, middle, fine = (hessian(adsorbed, EMT(), [8], displacement=step) for step in (0.04, 0.02, 0.01))
    assert np.abs(coarse - middle).max() / np.abs(middle - fine).max() == pytest.approx(4, rel=0.05)


def test_frequency_of_a_diatomic():
    pair = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]])
    along = np.diag([0, 0, 1.0])
    stiffness = 115.0 * np.block([[along, -along], [-along, along]])
    result = vibrations(pair, Springs(pair, stiffness), method="finite-difference")
    reduced = np.prod(pair.get_masses()) / pair.get_masses().sum()
    expected = angular_energy(115.0, reduced) / units.invcm
    assert result.frequencies_cm1[-1] == pytest.approx(expected, rel=1e-9)
    assert 2000 < expected < 2200  # carbon monoxide
    assert result.zero_point_energy == pytest.approx(expected * units.invcm / 2, rel=1e-6)


def test_masses_follow_the_atoms_in_any_order_of_indices(water):
    stiffness = np.diag(np.repeat([7.0, 3.0, 5.0], 3))
    expected = np.repeat([angular_energy(k, m) for k, m in zip([7, 3, 5], water.get_masses(), strict=True)], 3)
    for indices in ([0, 1, 2], [2, 0, 1]):
        result = vibrations(water, Springs(water, stiffness), indices)
        np.testing.assert_allclose(result.frequencies_cm1 * units.invcm, np.sort(expected), rtol=1e-9)
    deuterated = result.data.with_new_masses([15.999, 2.014, 2.014]).get_energies().real
    np.testing.assert_allclose(deuterated[-3:], angular_energy(5, 2.014), rtol=1e-9)


def test_same_frequencies_as_ase(adsorbed, tmp_path):
    reference = adsorbed.copy()
    reference.calc = EMT()
    ase = VibrationsOfASE(reference, indices=[8], delta=0.01, name=str(tmp_path / "vib"))
    ase.run()
    result = vibrations(adsorbed, EMT(), adsorbate_indices(adsorbed), displacement=0.01)
    np.testing.assert_allclose(result.frequencies_cm1, ase.get_frequencies().real, rtol=1e-7)
    assert result.zero_point_energy == pytest.approx(ase.get_zero_point_energy(), rel=1e-7)
    assert result.energy == pytest.approx(reference.get_potential_energy(), rel=1e-12)
    assert (result.fmax, result.method, result.notes) == (pytest.approx(0, abs=1e-3), "finite-difference", ())
    assert isinstance(result.data, VibrationsData) and result.data.get_indices().tolist() == [8]


@pytest.mark.parametrize("temperature", [1.0, 298.15, 1500.0])
def test_free_energy_is_the_harmonic_formula(water, temperature):
    result = vibrations(water, Springs(water, stiffness_of(9)))
    energies = np.maximum(result.frequencies_cm1, 50) * units.invcm
    thermal = units.kB * temperature
    occupied = 1 / np.expm1(np.minimum(energies / thermal, 700))
    internal = (energies * (0.5 + occupied)).sum()
    free = (energies / 2 + thermal * np.log1p(-np.exp(-energies / thermal))).sum()
    found = result.free_energy(temperature)
    assert found.temperature_K == temperature
    assert found.internal_energy == pytest.approx(internal, rel=1e-10)
    assert found.free_energy == pytest.approx(free, rel=1e-10)
    assert found.entropy == pytest.approx((internal - free) / temperature, abs=1e-14)
    assert result.zero_point_energy == pytest.approx(energies.sum() / 2)
    if temperature == 1.0:
        assert found.free_energy == pytest.approx(result.zero_point_energy, rel=1e-10)


def test_cold_modes_give_no_warning(water):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(vibrations(water, Springs(water, stiffness_of(9))).free_energy(0.01).entropy)


@pytest.mark.parametrize("lowest", [50.0, 12.0])
def test_low_modes_are_raised_in_the_free_energy_alone(water, lowest):
    eigenvalues = np.array([1e-9, *np.linspace(1, 9, 8)])
    water.set_masses(np.ones(3))
    result = vibrations(water, Springs(water, stiffness_of(9, eigenvalues)), lowest_cm1=lowest)
    assert result.frequencies_cm1[0] < 1
    assert result.notes[0] == f"1 mode(s) below {lowest:g} cm⁻¹ count as {lowest:g} cm⁻¹ in the free energy"
    raised = eigenvalues.copy()
    raised[0] = (lowest * units.invcm / PLANCK) ** 2
    expected = vibrations(water, Springs(water, stiffness_of(9, raised)), lowest_cm1=lowest / 2)
    assert result.free_energy(300).free_energy == pytest.approx(expected.free_energy(300).free_energy, rel=1e-6)
    assert expected.zero_point_energy - result.zero_point_energy == pytest.approx(lowest * units.invcm / 2, rel=0.02)


def test_mode_of_a_saddle_point_is_imaginary_and_left_out(tmp_path):
    """Al on the bridge of Al(100) is the saddle point of its hop between hollows."""
    atoms = fcc100("Al", (2, 2, 2), vacuum=8.0)
    add_adsorbate(atoms, "Al", 2.0, "bridge")
    atoms.set_constraint(FixAtoms(indices=range(8)))
    atoms.info.clear()
    atoms.calc = EMT()
    with BFGS(atoms, logfile=None) as search:
        search.run(fmax=1e-4, steps=200)
    result = vibrations(atoms, EMT())
    (imaginary,) = result.imaginary_cm1
    assert imaginary > 10 and len(result.frequencies_cm1) == 2 and (result.frequencies_cm1 > 50).all()
    assert result.notes == (f"1 imaginary mode(s), left out of zero-point and free energy: {imaginary:.1f}i cm⁻¹",)
    assert result.zero_point_energy == pytest.approx(result.frequencies_cm1.sum() * units.invcm / 2)
    energies, thermal = result.frequencies_cm1 * units.invcm, units.kB * 300
    expected = (energies / 2 + thermal * np.log1p(-np.exp(-energies / thermal))).sum()
    assert result.free_energy(300).free_energy == pytest.approx(expected)
    softest = result.data.get_modes()[0, 0]
    assert np.abs(softest[2]) < 1e-3 * np.linalg.norm(softest)  # it leads along the surface


def test_maximum_has_no_free_energy(water):
    result = vibrations(water, Springs(water, -stiffness_of(9)))
    assert result.imaginary_cm1.shape == (9,) and (np.diff(result.imaginary_cm1) <= 0).all()
    assert result.frequencies_cm1.size == 0 and result.zero_point_energy == 0
    assert result.notes[0].startswith("9 imaginary mode(s)") and result.notes[0].endswith("i, ... cm⁻¹")
    with pytest.raises(CalculationError, match="all modes are imaginary, so there is no harmonic free energy; relax"):
        result.free_energy(300)


def test_fixed_atoms_do_not_move(adsorbed):
    assert free_indices(adsorbed).tolist() == [4, 5, 6, 7, 8]
    result = vibrations(adsorbed, EMT())
    assert result.data.get_indices().tolist() == [4, 5, 6, 7, 8]
    assert (result.data.get_modes(all_atoms=True)[:, :4] == 0).all()
    assert hessian(adsorbed, EMT()).shape == (15, 15)
    unconstrained = adsorbed.copy()
    unconstrained.set_constraint()
    np.testing.assert_array_equal(hessian(adsorbed, EMT(), [0, 8]), hessian(unconstrained, EMT(), [0, 8]))


def test_constraints_do_not_enter_the_forces(water):
    stiffness = stiffness_of(9)
    water.set_constraint(FixBondLength(0, 1))
    np.testing.assert_allclose(hessian(water, Springs(water, stiffness)), stiffness, atol=1e-10)


def test_input_is_not_changed(adsorbed):
    before = adsorbed.copy()
    vibrations(adsorbed, EMT(), [8])
    hessian(adsorbed, EMT(), [8])
    assert adsorbed == before and adsorbed.calc is None


def test_structure_that_is_not_relaxed_is_noted(adsorbed):
    moved = adsorbed.copy()
    moved.positions[8, 2] += 0.1
    moved.positions[0, 0] += 0.3  # its force does not count, it is not among those that move
    result = vibrations(moved, EMT(), [8])
    moved.calc = EMT()
    assert result.fmax == pytest.approx(np.linalg.norm(moved.get_forces(apply_constraint=False)[8]))
    expected = f"the largest force on an atom that moves is {result.fmax:.3f} eV/Å: the structure is no minimum"
    assert result.notes[0].startswith(expected)


def test_free_molecule_is_noted(water):
    result = vibrations(water, Springs(water, stiffness_of(9)))
    assert result.notes == (
        "no atom is held in place, so translations (of a molecule, rotations too) are among the modes; "
        "the harmonic free energy is meant for atoms that others hold",
    )
    assert vibrations(water, Springs(water, stiffness_of(9)), [0]).notes == ()


def test_asymmetric_derivative_is_measured_and_warned_of(water):
    stiffness = stiffness_of(9)
    stiffness[1, 5] += 0.4
    share = 0.4 / np.abs(stiffness).max()
    words = rf"differs from its transpose by {100 * share:.1f} % of its largest element"
    with pytest.warns(AsymmetricHessianWarning, match=words):
        found = hessian(water, Springs(water, stiffness))
    np.testing.assert_allclose(found, (stiffness + stiffness.T) / 2, atol=1e-10)
    np.testing.assert_array_equal(found, found.T)
    result = vibrations(water, Springs(water, stiffness))
    assert result.asymmetry == pytest.approx(share, rel=1e-6) and share > ASYMMETRY_WORTH_A_WARNING
    assert any(re.search(words, note) for note in result.notes)


def test_small_asymmetry_is_quiet(water):
    stiffness = stiffness_of(9)
    stiffness[1, 5] += 0.5 * ASYMMETRY_WORTH_A_WARNING
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hessian(water, Springs(water, stiffness))
    assert 0 < vibrations(water, Springs(water, stiffness)).asymmetry < ASYMMETRY_WORTH_A_WARNING


def test_progress_counts_displaced_structures(water):
    seen = []
    hessian(water, Springs(water, stiffness_of(9)), [0], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 6) for number in range(1, 7)]


def test_model_gets_displaced_structures_in_few_parts(adsorbed, loader, monkeypatch):
    sizes, seen = [], []

    def evaluate(self, structures, search=None, original=ToyPotential.evaluate):
        sizes.append(len(structures))
        return original(self, structures)

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    expected = hessian(adsorbed, EMT(), [7, 8])
    whole = hessian(adsorbed, ESCNCalculator(), [7, 8], progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(whole, expected, atol=1e-3)  # the toy model rounds its forces to float32
    monkeypatch.setattr("escn_calc.hessian.SMALLEST_PART", 2)
    for parts, at_once in ((3, 4), (12, 2)):
        monkeypatch.setattr("escn_calc.hessian.PARTS", parts)
        found = hessian(adsorbed, ESCNCalculator(), [7, 8], progress=lambda done, total: seen.append((done, total)))
        np.testing.assert_array_equal(found, whole)
        assert at_once in sizes
    assert sizes == [12] + 3 * [4] + 6 * [2]
    assert seen == [(done, 12) for done in (12, 4, 8, 12, 2, 4, 6, 8, 10, 12)]


def test_displaced_structure_that_fails_gives_its_own_error(adsorbed, loader, monkeypatch):
    def evaluate(self, structures, search=None):
        raise BatchError([None] * len(structures), {3: CalculationError("structure 3 (Cu8N): the energy is nan")})

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    with pytest.raises(CalculationError, match=r"^structure 3 \(Cu8N\): the energy is nan") as caught:
        hessian(adsorbed, ESCNCalculator(), [8])
    assert type(caught.value) is CalculationError


@pytest.mark.parametrize(
    ("forces", "method", "expected"),
    [
        ("direct", "auto", "finite-difference"),
        ("gradient", "auto", "autograd"),
        ("gradient", "finite-difference", "finite-difference"),
        ("direct", "autograd", "autograd"),
    ],
)
def test_method_follows_the_kind_of_forces(adsorbed, loader, monkeypatch, forces, method, expected):
    exact = np.diag([1.0, 2.0, 3.0])
    asked = []
    monkeypatch.setattr(
        ToyPotential, "hessian", lambda self, atoms, indices: asked.append(indices) or exact, raising=False
    )
    result = vibrations(adsorbed, ESCNCalculator(forces=forces), [8], method=method)
    assert result.method == expected
    assert asked == ([[8]] if expected == "autograd" else [])
    assert np.array_equal(result.data.get_hessian_2d(), exact) == (expected == "autograd")


def test_adsorbate_indices(adsorbed):
    assert adsorbate_indices(adsorbed).tolist() == [8]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (
            None,
            r"the structure has no tags, so its adsorbate is not known; give the adsorbate's atoms the tag 2, or name",
        ),
        (
            [0] * 8 + [1],
            r"no atom has the tag 2 of an adsorbate, the tags are 0, 1; give the adsorbate's atoms the tag 2",
        ),
        ([3] * 3 + [2] * 3 + [1] * 2 + [0], r"the tags 0, 1, 2, 3 count layers and do not mark an adsorbate; give the"),
    ],
)
def test_structures_without_a_marked_adsorbate(adsorbed, tags, message):
    atoms = adsorbed.copy()
    if tags is None:
        del atoms.arrays["tags"]
    else:
        atoms.set_tags(tags)
    with pytest.raises(InputError, match=message):
        adsorbate_indices(atoms)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"indices": [9]}, "there is no atom 9; the 9 atoms have the indices 0 to 8"),
        ({"indices": [-1]}, "there is no atom -1; the 9 atoms"),
        ({"indices": [8, 7, 8]}, "atom 8 is named more than once among the atoms that move"),
        ({"indices": []}, r"indices are \[\]; give a list with the numbers of the atoms that move"),
        ({"indices": [True] * 9}, r"indices are \[True, .*\]; give a list with the numbers"),
        ({"indices": [0.5]}, r"indices are \[0.5\]; give a list with the numbers"),
        ({"indices": 8}, "indices are 8; give a list with the numbers"),
        ({"method": "forward"}, "method is 'forward', but must be one of auto, autograd, finite-difference"),
        ({"method": "autograd"}, "Broken has no second derivatives by autograd; use method='finite-difference'"),
        ({"displacement": 0.0}, r"the displacement is 0.0 Å; it must be positive and at most 0.2 Å \(0.01 Å suits"),
        ({"displacement": float("nan")}, "the displacement is nan Å"),
        ({"displacement": 0.3}, "the displacement is 0.3 Å"),
        ({"calculator": "EMT"}, "calculator is 'EMT'; pass a calculator of ASE, such as ESCNCalculator"),
    ],
)
@pytest.mark.parametrize("function", [hessian, vibrations])
def test_bad_input_is_refused_before_any_evaluation(adsorbed, function, settings, message):
    calculator = Broken()
    with pytest.raises(InputError, match=message):
        function(adsorbed, **{"calculator": calculator, **settings})
    assert calculator.calls == 0


@pytest.mark.parametrize("lowest", [0, -1.0, float("nan"), float("inf")])
def test_bad_lowest_frequency(adsorbed, lowest):
    with pytest.raises(InputError, match=rf"lowest_cm1 is {lowest} cm⁻¹; it must be a positive number"):
        vibrations(adsorbed, Broken(), lowest_cm1=lowest)


@pytest.mark.parametrize("temperature", [0, -5.0, float("nan"), float("inf")])
def test_bad_temperature(water, temperature):
    result = vibrations(water, Springs(water, stiffness_of(9)))
    with pytest.raises(InputError, match=rf"the temperature is {temperature} K; it must be a positive number \(at 0 K"):
        result.free_energy(temperature)


@pytest.mark.parametrize("function", [hessian, vibrations])
def test_structures_and_calculators_that_cannot_vibrate(adsorbed, loader, function):
    with pytest.raises(InputError, match="vibrations need forces, and the calculator has none: forces"):
        function(adsorbed, Broken(property_missing=True))
    with pytest.raises(InputError, match="vibrations need forces, and the model has none; load it with forces='grad"):
        function(adsorbed, ESCNCalculator("energy-only"))
    with pytest.raises(CalculationError, match=r"the force on atom 8 \(N\) is not finite; check the structure"):
        function(adsorbed, Broken())
    fixed = adsorbed.copy()
    fixed.set_constraint(FixAtoms(indices=range(9)))
    with pytest.raises(InputError, match="all 9 atoms are fixed, so there is nothing to vibrate; fix fewer atoms"):
        function(fixed, EMT())


def test_atoms_without_mass(water):
    water.set_masses([16.0, 0.0, 1.0])
    with pytest.raises(InputError, match=r"atom 1 \(H\) has the mass 0.0; set it with set_masses"):
        vibrations(water, Springs(water, stiffness_of(9)))
    assert vibrations(water, Springs(water, stiffness_of(9)), [0, 2]).frequencies_cm1.shape == (6,)


def test_errors_of_the_model_pass_through(loader):
    atoms = Atoms("HeH", positions=[[0, 0, 0], [0, 0, 2.0]])
    with pytest.raises(InputError, match="atom 0 is He, which the model does not know"):
        hessian(atoms, ESCNCalculator())


@pytest.fixture(scope="module")
def smooth(tmp_path_factory) -> Path:
    return write_smooth_model(tmp_path_factory.mktemp("model") / "smooth")


def test_autograd_agrees_with_finite_differences(smooth):
    """The error of the extrapolated differences is of fourth order in a step of 0.001 Å."""
    atoms = rattled_slab()
    indices = [13, 12, 8]
    calculator = ESCNCalculator(smooth, dtype="float64")
    assert calculator.potential.forces == "gradient"
    exact = hessian(atoms, calculator, indices)
    coarse, fine = (
        hessian(atoms, calculator, indices, method="finite-difference", displacement=step) for step in (0.002, 0.001)
    )
    assert exact.shape == (9, 9) and np.abs(exact).max() > 1
    np.testing.assert_allclose((4 * fine - coarse) / 3, exact, atol=1e-9 * np.abs(exact).max())
    plain = vibrations(atoms, calculator, indices, method="finite-difference", displacement=1e-4)
    np.testing.assert_allclose(plain.data.get_hessian_2d()[:3, :3], exact[6:, 6:], atol=1e-6 * np.abs(exact).max())
    assert plain.asymmetry < 1e-6


def test_single_precision_with_the_default_step(smooth):
    """What docs/vibrations.md says about float32: finite differences stay within the error of the step itself."""
    atoms = rattled_slab()
    double, single = (
        vibrations(atoms, ESCNCalculator(smooth, dtype=dtype), [12, 13], method="finite-difference")
        for dtype in ("float64", "float32")
    )
    scale = np.abs(double.data.get_hessian_2d()).max()
    np.testing.assert_allclose(single.data.get_hessian_2d(), double.data.get_hessian_2d(), atol=1e-4 * scale)


def test_shifting_a_whole_molecule_costs_nothing(smooth):
    """Acoustic sum rule: Σ_j H[ia, jb] = 0, so the three translations have no frequency."""
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=2)
    result = vibrations(atoms, ESCNCalculator(smooth, dtype="float64"))
    assert result.method == "autograd" and result.asymmetry < 1e-12
    full = result.data.get_hessian()
    np.testing.assert_allclose(full.sum(axis=2), 0, atol=1e-10 * np.abs(full).max())
    frequencies = np.sort(np.abs(result.data.get_frequencies()))
    assert frequencies[2] < 1e-3 < 1 < frequencies[3]


def test_gradient_forces_are_symmetric_where_direct_ones_are_not(record_figure):
    checkpoint = Path(__file__).parent / "data/parity/l2m1/checkpoint.pt"
    direct, gradient = (
        vibrations(
            rattled_slab(),
            ESCNCalculator(checkpoint, dtype="float64", forces=kind),
            [12, 13],
            method="finite-difference",
            displacement=1e-3,
        ).asymmetry
        for kind in ("direct", "gradient")
    )
    record_figure("asymmetry of the Hessian of l2m1", f"{direct:.1e} with direct forces, {gradient:.1e} with gradients")
    assert direct > 0.1
    assert gradient < 1e-3


def test_calculator_gives_saddle_searches_its_hessian(smooth):
    atoms = molecule("H2O")
    calculator = ESCNCalculator(smooth, dtype="float64")
    free = calculator.get_hessian(atoms)
    np.testing.assert_array_equal(free, hessian(atoms, calculator, [0, 1, 2]))
    atoms.set_constraint(FixAtoms([1]))
    held = calculator.get_hessian(atoms)
    np.testing.assert_array_equal(held[np.ix_([0, 1, 2, 6, 7, 8], [0, 1, 2, 6, 7, 8])], hessian(atoms, calculator))
    np.testing.assert_array_equal(held, held.T)
    assert not held[3:6].any() and np.abs(free[3:6]).max() > 1
