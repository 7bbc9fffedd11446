"""``escn relax``: reading, fixing atoms, outputs, exit status and error messages."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms, FixCartesian
from ase.io import read, write
from ase.units import GPa
from click.testing import CliRunner, Result
from matplotlib.figure import Figure

from escn_calc.cli import main
from escn_calc.cli.relax_outputs import plot_history
from escn_calc.errors import CalculationError, InputError
from escn_calc.relax import OPTIMIZERS, CellStep, RelaxResult, RelaxStep
from escn_calc.structure_input import fix_atoms, fixed_atoms, heights, read_structure
from escn_calc.structures import UnusedInputWarning
from tests.toy_potential import SHA256, ToyPotential

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def slab() -> Atoms:
    atoms = fcc111("Cu", (2, 2, 2), vacuum=8.0, periodic=True)
    atoms.rattle(0.05, seed=1)
    atoms.set_tags([0] * 4 + [1] * 4)
    atoms.info.clear()
    return atoms


@pytest.fixture
def folder(tmp_path, monkeypatch, slab, loader) -> Path:
    """A working directory with slab.xyz, where commands use toy models."""
    monkeypatch.chdir(tmp_path)
    write("slab.xyz", slab, format="extxyz")
    return tmp_path


def escn(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments], env={"COLUMNS": "120", "NO_COLOR": "1"})


def record() -> dict:
    return json.loads(Path("runs/slab/slab.json").read_text())


def test_converged(folder, slab):
    result = escn("relax", "slab.xyz", "--fix-tags", "0")
    assert result.exit_code == 0, result.output
    final = read("runs/slab/slab_relaxed.extxyz")
    frames = read("runs/slab/slab.traj", ":")
    run = record()
    assert run["result"]["converged"] and run["result"]["reason"] == "converged"
    assert run["result"]["steps"] == len(frames) - 1 > 0
    assert run["result"]["energy_eV"] == pytest.approx(final.get_potential_energy(), abs=1e-6)
    assert [step["energy"] for step in run["result"]["history"]] == [frame.get_potential_energy() for frame in frames]
    assert np.linalg.norm(final.get_forces(), axis=1).max() == pytest.approx(
        run["result"]["fmax_eV_per_angstrom"], abs=1e-6
    )
    np.testing.assert_allclose(final.positions[:4], slab.positions[:4], atol=1e-7)
    assert run["result"]["fixed_atoms"] == [0, 1, 2, 3] == fixed_atoms(final).tolist()
    assert Path("runs/slab/slab.png").read_bytes().startswith(PNG_SIGNATURE)
    assert sorted(os.listdir("runs/slab")) == ["slab.json", "slab.png", "slab.traj", "slab_relaxed.extxyz"]


def test_summary_says_what_the_numbers_are(folder):
    result = escn("relax", "slab.xyz")
    run = record()["result"]
    for row in (
        "converged",
        f"steps {run['steps']} ",
        f"adsorption energy {run['energy_eV']:.6f} eV",
        f"energy change {run['energy_change_eV']:+.6f} eV (last minus first)",
        "energy reference clean slab [relaxed] and gas references",
        f"largest force {run['fmax_eV_per_angstrom']:.4f} eV/Å (after constraints)",
        f"largest displacement {run['max_displacement_angstrom']:.4f} Å",
        "wall time",
        "model default",
        f"model sha256 {SHA256['default']}",
        "Results are in runs/slab/",
    ):
        assert row in " ".join(result.stdout.replace("│", " ").split()), row


def test_doubts_are_in_summary_and_record(folder, monkeypatch):
    def evaluate(self, structures, search, original=ToyPotential.evaluate):
        return [replace(found, energy=found.energy + 1.0 * self.calls) for found in original(self, structures)]

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    result = escn("relax", "slab.xyz", "--steps", "3", "--fmax", "1e-6")
    run = record()["result"]
    (note,) = run["notes"]
    assert note.startswith(f"energy rose by {run['energy_change_eV']:.2f} eV: these forces are not the gradient")
    assert f"warning {note}" in " ".join(result.stdout.replace("│", " ").split())


def test_no_doubts_no_warning(folder):
    assert "warning" not in escn("relax", "slab.xyz").output
    assert record()["result"]["notes"] == []


def test_progress_has_a_line_for_every_step(folder):
    result = escn("relax", "slab.xyz", "--steps", "2", "--fmax", "1e-6")
    lines = [line.split() for line in result.stderr.splitlines() if line.strip()]
    assert lines[0] == ["step", "energy", "/", "eV", "fmax", "/", "eV/Å"]
    history = record()["result"]["history"]
    assert lines[1:4] == [[str(s["index"]), f"{s['energy']:.6f}", f"{s['fmax']:.4f}"] for s in history]


def test_record_of_the_run(folder, loader):
    escn("relax", "slab.xyz", "--model", "other", "--dtype", "float64", "--optimizer", "fire", "--steps", "1")
    run = record()
    assert run["model"]["name"] == "other" and run["model"]["sha256"] == SHA256["other"]
    assert (run["model"]["energy_kind"], run["model"]["device"]) == ("adsorption", "cpu")
    assert run["settings"]["optimizer"] == "FIRE" and run["settings"]["dtype"] == "float64"
    assert run["settings"]["steps"] == 1 and run["settings"]["index"] == -1
    assert run["structure"] == {"file": "slab.xyz", "sha256": hashlib.sha256(Path("slab.xyz").read_bytes()).hexdigest()}
    assert {"escn-calc", "python", "ase", "numpy", "torch"} == run["versions"].keys()
    (request,) = loader.requests
    assert request["model"] == "other" and (request["dtype"], request["frames"]) == ("float64", "canonical")
    assert request["forces"] is None and run["model"]["forces_kind"] == "direct"


def test_forces_can_be_chosen(folder, loader):
    assert escn("relax", "slab.xyz", "--forces", "gradient").exit_code == 0
    assert loader.requests[-1]["forces"] == "gradient"
    assert record()["settings"]["forces"] == record()["model"]["forces_kind"] == "gradient"
    assert "'exact' is not one of 'direct', 'gradient'" in escn("relax", "slab.xyz", "--forces", "exact").stderr


def test_step_limit_has_its_own_exit_status(folder):
    result = escn("relax", "slab.xyz", "--steps", "1", "--fmax", "1e-6")
    assert result.exit_code == 3
    assert "not converged: step limit reached" in result.stdout
    assert record()["result"]["steps"] == 1
    assert len(read("runs/slab/slab.traj", ":")) == 2


def test_interrupt_keeps_what_is_there(folder, monkeypatch):
    def evaluate(self, structures, search, original=ToyPotential.evaluate):
        if self.calls == 3:
            raise KeyboardInterrupt
        return original(self, structures)

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    result = escn("relax", "slab.xyz", "--fmax", "1e-6")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "Interrupted."
    assert "not converged: interrupted" in result.stdout
    assert record()["result"]["steps"] == 2
    assert len(read("runs/slab/slab.traj", ":")) == 3
    assert read("runs/slab/slab_relaxed.extxyz").get_potential_energy() == pytest.approx(
        record()["result"]["energy_eV"], abs=1e-6
    )


def test_sigterm_keeps_what_is_there(folder, monkeypatch):
    def evaluate(self, structures, search, original=ToyPotential.evaluate):
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, structures)

    def write(self, path, original=Figure.savefig, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        original(self, path, **options)

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    monkeypatch.setattr(Figure, "savefig", write)
    before = signal.getsignal(signal.SIGTERM)
    result = escn("relax", "slab.xyz", "--fmax", "1e-6")
    assert result.exit_code == 143
    assert result.stderr.splitlines()[-1] == "Terminated."
    assert record()["result"]["reason"] == "interrupted" and record()["result"]["steps"] == 2
    assert len(read("runs/slab/slab.traj", ":")) == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_interrupt_before_the_first_step(folder, monkeypatch):
    def evaluate(self, structures, search):
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    result = escn("relax", "slab.xyz")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "Interrupted."


def test_failure_midway_keeps_the_good_frames(folder, monkeypatch):
    def evaluate(self, structures, search, original=ToyPotential.evaluate):
        if self.calls == 3:
            raise CalculationError("structure 0: the energy is nan; look at the structure")
        return original(self, structures)

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    result = escn("relax", "slab.xyz", "--fmax", "1e-6")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "Error: the relaxation stopped after step 2: structure 0: the energy is nan; look at the structure. "
        "The frames before that are kept"
    )
    assert record()["result"]["reason"] == "failed"
    assert len(read("runs/slab/slab.traj", ":")) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.xyz"], "structure file 'missing.xyz' does not exist; give the path of a structure file"),
        (["."], "structure file '.' is a folder; give the path of a structure file"),
        (["slab.xyz", "--index", "3"], "'slab.xyz' has 1 structure(s), so there is no index 3 (the first is 0)"),
        (["slab.xyz", "--fix-tags", "5"], "no atom has the tag 5; the tags are 0, 1"),
        (["slab.xyz", "--fix-tags", "0", "--fix-tags", "1"], "all 8 atoms are fixed, nothing is left to move"),
        (["slab.xyz", "--fix-below-height", "99"], "all 8 atoms are fixed, nothing is left to move"),
        (["slab.xyz", "--fix-below-height", "-1"], "the height below which atoms are fixed is -1.0 Å; it must be pos"),
        (["slab.xyz", "--model", "defualt"], "there is no model 'defualt'; did you mean default?"),
        (["slab.xyz", "--model", "energy-only"], "a relaxation needs forces, and the calculator has none"),
        (["slab.xyz", "--fmax", "nan"], "fmax is nan eV/Å; it must be a positive number"),
        (["slab.xyz", "--fmax", "inf"], "fmax is inf eV/Å; it must be a positive number"),
        (["helium.xyz"], "structure 0: atom 0 is He, which the model does not know; remove it"),
    ],
)
def test_errors_are_one_line_without_traceback(folder, arguments, message):
    write("helium.xyz", Atoms("He"))
    result = escn("relax", *arguments)
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1 and errors[0].startswith(f"Error: {message}")
    assert "Traceback" not in result.output
    assert "fmax / eV/Å" not in result.stderr and not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "BGFS"], "Invalid value for '--optimizer': unknown optimizer 'BGFS'; did you mean BFGS"),
        (["--optimizer", "x"], f"unknown optimizer 'x'; known are {', '.join(OPTIMIZERS)}"),
        (["--fmax", "-1"], "Invalid value for '--fmax'"),
        (["--fmax", "0"], "Invalid value for '--fmax'"),
        (["--steps", "-1"], "Invalid value for '--steps'"),
        (["--dtype", "half"], "'half' is not one of 'float32', 'float64'"),
        (["--device", "gpu"], "'gpu' is not one of 'auto', 'cpu', 'cuda', 'mps'"),
        (["--frames", "random"], "'random' is not one of 'canonical', 'converged'"),
    ],
)
def test_wrong_usage(folder, arguments, message):
    result = escn("relax", "slab.xyz", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("runs").exists()


def test_warnings_of_the_package_are_notes(folder, monkeypatch):
    def evaluate(self, structures, search, original=ToyPotential.evaluate):
        warnings.warn("charges:\nnot used", UnusedInputWarning, stacklevel=1)
        warnings.warn("of somebody else", UserWarning, stacklevel=1)
        return original(self, structures)

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    with pytest.warns(UserWarning, match="of somebody else") as caught:
        result = escn("relax", "slab.xyz", "--steps", "0")
    assert result.stderr.splitlines()[0] == "Note: charges: not used"
    assert "UnusedInputWarning" not in result.output
    assert {warning.category for warning in caught} == {UserWarning}


def test_a_broken_pipe_is_quiet(folder, monkeypatch):
    def broken(*arguments):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("escn_calc.cli.relax.summary_table", broken)
    result = escn("relax", "slab.xyz", "--steps", "0")
    assert result.exit_code == 1
    assert "pipe" not in result.output


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", ["slab.traj", "link.traj"])
def test_the_structure_file_is_never_replaced(folder, slab, loader, name, overwrite):
    write("slab.traj", slab)
    before = Path("slab.traj").read_bytes()
    Path("out").mkdir()
    Path("out/link.traj").symlink_to(folder / "slab.traj")
    Path("link.traj").symlink_to("slab.traj")
    target = "." if name == "slab.traj" else "out"
    result = escn("relax", name, "--output-dir", target, *overwrite)
    assert result.exit_code == 1
    assert f"would replace the structure file '{name}'; choose another --output-dir" in " ".join(result.stderr.split())
    assert Path("slab.traj").read_bytes() == before
    assert loader.requests == []


def test_a_structure_file_that_goes_away_costs_nothing(folder, monkeypatch):
    expected = hashlib.sha256(Path("slab.xyz").read_bytes()).hexdigest()

    def evaluate(self, structures, search, original=ToyPotential.evaluate):
        Path("slab.xyz").unlink(missing_ok=True)
        return original(self, structures)

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    assert escn("relax", "slab.xyz").exit_code == 0
    assert record()["structure"]["sha256"] == expected


def test_a_refused_structure_does_not_cost_the_old_results(folder):
    escn("relax", "slab.xyz")
    before = {path: path.read_bytes() for path in Path("runs/slab").iterdir()}
    write("slab.extxyz", Atoms("He"))
    assert escn("relax", "slab.extxyz", "--overwrite").exit_code == 1
    assert {path: path.read_bytes() for path in Path("runs/slab").iterdir()} == before


def test_results_are_not_overwritten(folder, loader):
    escn("relax", "slab.xyz")
    before = {path: path.read_bytes() for path in Path("runs/slab").iterdir()}
    loader.requests.clear()
    result = escn("relax", "slab.xyz", "--model", "other")
    assert result.exit_code == 1
    assert "Error: 'runs/slab/slab.traj' exists; choose another --output-dir, or give --overwrite" in result.stderr
    assert loader.requests == []
    assert {path: path.read_bytes() for path in Path("runs/slab").iterdir()} == before


def test_overwrite_replaces_results_and_nothing_else(folder):
    escn("relax", "slab.xyz")
    Path("runs/slab/notes.txt").write_text("mine")
    assert escn("relax", "slab.xyz", "--model", "other", "--overwrite").exit_code == 0
    assert record()["model"]["name"] == "other"
    assert Path("runs/slab/notes.txt").read_text() == "mine"


def test_a_wrong_model_name_does_not_cost_the_old_results(folder):
    escn("relax", "slab.xyz")
    assert escn("relax", "slab.xyz", "--model", "typo", "--overwrite").exit_code == 1
    assert record()["result"]["converged"]


def test_output_dir(folder):
    assert escn("relax", "slab.xyz", "--output-dir", "deep/er").exit_code == 0
    assert Path("deep/er/slab.traj").exists() and not Path("runs").exists()
    Path("file").touch()
    result = escn("relax", "slab.xyz", "--output-dir", "file/below")
    assert result.exit_code == 1
    assert "Error: cannot write to the folder 'file/below': Not a directory" in result.stderr


def test_frame_of_a_file_with_several(folder, slab):
    write("many.traj", [slab, bulk("Cu"), bulk("Cu", cubic=True)])
    for index, atoms in ((0, 8), (1, 1), (-1, 4)):
        assert escn("relax", "many.traj", "--index", str(index), "--overwrite").exit_code == 0
        assert len(read("runs/many/many_relaxed.extxyz")) == atoms
    escn("relax", "many.traj", "--overwrite")
    assert len(read("runs/many/many_relaxed.extxyz")) == 4


@pytest.mark.parametrize("name", ["POSCAR", "slab.cif", "slab.traj", "slab.json", "slab.xyz", "slab.pdb"])
def test_formats_of_ase(folder, slab, name):
    write(name, slab)
    atoms = read_structure(Path(name))
    assert atoms.get_chemical_formula() == "Cu8"
    assert escn("relax", name, "--output-dir", "out", "--steps", "1").exit_code in (0, 3)


def test_format_that_only_pymatgen_reads(folder, slab):
    from pymatgen.io.ase import AseAtomsAdaptor

    AseAtomsAdaptor.get_structure(slab).to(filename="slab.yaml")
    atoms = read_structure(Path("slab.yaml"))
    assert type(atoms) is Atoms
    np.testing.assert_allclose(atoms.cell, slab.cell, atol=1e-6)
    assert escn("relax", "slab.yaml", "--steps", "1").exit_code in (0, 3)


@pytest.mark.parametrize("text", ["", "hello\n", "3\n\nCu 0 0 0\n", "\x00\x01\x02"])
@pytest.mark.parametrize("suffix", ["xyz", "cif", "traj", "vasp", "unknown"])
def test_damaged_files(folder, text, suffix):
    path = Path(f"damaged.{suffix}")
    path.write_text(text)
    with pytest.raises(InputError, match=rf"damaged\.{suffix}'"):
        read_structure(path)


def test_partly_occupied_sites_are_refused(folder):
    Path("alloy.cif").write_text(
        "data_alloy\n_symmetry_space_group_name_H-M 'P 1'\n"
        "_cell_length_a 3.7\n_cell_length_b 3.7\n_cell_length_c 3.7\n"
        "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\n"
        "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
        "_atom_site_occupancy\nCu1 Cu 0 0 0 0.75\nAu1 Au 0 0 0 0.25\n"
    )
    with pytest.raises(InputError, match=r"site 0 is only partly occupied \(Cu 0.75, Au 0.25\); give an ordered"):
        read_structure(Path("alloy.cif"))


def test_constraints_in_the_file_are_kept_and_combined(folder, slab):
    slab.set_constraint([FixAtoms([7]), FixCartesian([6], mask=(True, True, False))])
    write("held.traj", slab)
    result = escn("relax", "held.traj", "--fix-tags", "0")
    assert result.exit_code == 0, result.output
    final = read("runs/held/held.traj")
    np.testing.assert_array_equal(final.positions[[0, 1, 2, 3, 7]], slab.positions[[0, 1, 2, 3, 7]])
    np.testing.assert_array_equal(final.positions[6, :2], slab.positions[6, :2])
    assert final.positions[6, 2] != slab.positions[6, 2]
    assert (final.positions[[4, 5]] != slab.positions[[4, 5]]).all()


def test_tags_that_the_file_does_not_have(slab):
    slab.arrays.pop("tags")
    with pytest.raises(InputError, match="has no tags, so no atoms can be fixed by tag; fix by height instead"):
        fix_atoms(slab, tags=[0])


def test_height_is_strictly_below_and_leaves_the_input_alone(slab):
    slab.positions[:] = [[0, 0, 5.0 + 0.5 * number] for number in range(8)]
    assert fixed_atoms(fix_atoms(slab, below_height=1.0)).tolist() == [0, 1]
    assert not slab.constraints
    assert fixed_atoms(fix_atoms(slab, tags=[1], below_height=1.0)).tolist() == [0, 1, 4, 5, 6, 7]


def test_heights_follow_the_surface_normal(slab):
    expected = slab.positions[:, 2] - slab.positions[:, 2].min()
    turned = slab.copy()
    turned.rotate(77, (1, 2, 3), rotate_cell=True)
    np.testing.assert_allclose(heights(turned), expected, atol=1e-9)
    tilted = slab.copy()
    tilted.cell[2] += tilted.cell[0] - 0.5 * tilted.cell[1]
    np.testing.assert_allclose(heights(tilted), expected, atol=1e-12)
    left_handed = slab.copy()
    left_handed.cell[:] = left_handed.cell[[1, 0, 2]]
    np.testing.assert_allclose(heights(left_handed), expected, atol=1e-12)


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.diag([5.0, 0, 0]), np.diag([5.0, 5.0, 0])])
def test_heights_without_a_full_cell_are_along_z(cell):
    atoms = Atoms("CuCO", positions=[[0, 0, 1.0], [3, 0, 2.5], [0, 4, 4.0]], cell=cell)
    np.testing.assert_allclose(heights(atoms), [0, 1.5, 3.0])


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("adsorption", "adsorption energy (eV)"),
        ("total", "total energy (eV)"),
        ("unknown", "energy (kind unknown) (eV)"),
    ],
)
def test_plot_is_labelled(tmp_path, monkeypatch, kind, label):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: drawn.append(figure))
    history = (RelaxStep(0, -1.0, 2.0), RelaxStep(1, -1.5, 0.04))
    plot_history(RelaxResult(Atoms("Cu"), "converged", "", history, 0.1, 1.0), kind, 0.05, 1.0, tmp_path / "plot.png")
    above, below = drawn[0].axes
    assert above.get_ylabel() == label
    assert (below.get_ylabel(), below.get_xlabel()) == ("largest force (eV/Å)", "optimiser step")
    assert above.lines[0].get_ydata().tolist() == [-1.0, -1.5]
    assert below.lines[0].get_ydata().tolist() == [2.0, 0.04]
    assert set(below.lines[1].get_ydata()) == {0.05}
    assert below.get_legend().get_texts()[0].get_text() == "converged below 0.05 eV/Å"
    assert below.get_yscale() == "log"


@pytest.fixture
def crystal(folder) -> Atoms:
    """A copper crystal, compressed, in crystal.xyz."""
    atoms = bulk("Cu", a=3.5)
    atoms.info.clear()
    write("crystal.xyz", atoms, format="extxyz")
    return atoms


def test_cell_relaxes_with_gradient_forces(crystal):
    result = escn("relax", "crystal.xyz", "--forces", "gradient", "--cell", "isotropic", "--smax", "1e-5")
    assert result.exit_code == 0, result.output
    final = read("runs/crystal/crystal_relaxed.extxyz")
    run = json.loads(Path("runs/crystal/crystal.json").read_text())
    cell, settings = run["result"]["cell"], run["settings"]
    assert (settings["cell"], settings["smax"], settings["pressure"]) == ("isotropic", 1e-5, 0.0)
    np.testing.assert_allclose([*cell["lengths_angstrom"], *cell["angles_degree"]], final.cell.cellpar(), atol=1e-6)
    assert cell["volume_angstrom3"] == pytest.approx(final.cell.volume, rel=1e-6)
    assert final.cell.volume > 1.05 * crystal.cell.volume
    assert cell["smax_eV_per_angstrom3"] < 1e-5
    np.testing.assert_allclose(cell["stress_eV_per_angstrom3"], final.get_stress(), atol=1e-7)
    assert run["result"]["history"][0]["smax"] > 0.05
    volumes = [frame.cell.volume for frame in read("runs/crystal/crystal.traj", ":")]
    assert volumes == [step["volume"] for step in run["result"]["history"]]


def test_summary_and_progress_of_a_cell(crystal):
    result = escn("relax", "crystal.xyz", "--forces", "gradient", "--cell", "full", "--pressure", "5")
    run = json.loads(Path("runs/crystal/crystal.json").read_text())["result"]
    cell, history = run["cell"], run["history"]
    a = np.sqrt(2) * cell["lengths_angstrom"][0]
    xx = history[-1]["stress"][0] / GPa
    assert xx == pytest.approx(-5, abs=0.08)
    for row in (
        f"enthalpy {cell['enthalpy_eV']:.6f} eV (energy plus pressure times volume)",
        f"largest stress {cell['smax_eV_per_angstrom3']:.6f} eV/Å³ ({cell['smax_eV_per_angstrom3'] / GPa:.4f} GPa;",
        f"stress before {history[0]['stress'][0] / GPa:.3f} ",
        f"stress after {xx:.3f} ",
        f"cell {' '.join(f'{length:.4f}' for length in cell['lengths_angstrom'])} Å, 60.000 60.000 60.000°",
        f"volume {cell['volume_angstrom3']:.4f} Å³ ({100 * (history[-1]['volume'] / history[0]['volume'] - 1):+.3f} %)",
        f"cubic lattice constant {a:.4f} Å (face-centred cubic cell)",
    ):
        assert row in " ".join(result.stdout.replace("│", " ").split()), row
    lines = [line.split() for line in result.stderr.splitlines() if line.strip()]
    assert lines[0][7:] == ["smax", "/", "eV/Å³", "volume", "/", "Å³"]
    assert lines[1][3:] == [f"{history[0]['smax']:.6f}", f"{history[0]['volume']:.4f}"]


def test_a_fixed_cell_has_no_rows_of_its_own(folder):
    result = escn("relax", "slab.xyz", "--forces", "gradient")
    assert record()["result"]["cell"] is None
    assert "GPa" not in result.output and "volume" not in result.output


def test_what_lies_above_the_lowest_step_is_in_summary_and_record(folder, monkeypatch):
    def evaluate(self, structures, search, original=ToyPotential.evaluate):
        return [replace(found, energy=found.energy + self.calls % 3) for found in original(self, structures)]

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    result = escn("relax", "slab.xyz", "--steps", "3", "--fmax", "1e-6")
    run = record()["result"]
    assert run["lowest_step"] == 2 and run["energy_above_lowest_eV"] > 0.5
    text = " ".join(result.stdout.replace("│", " ").split())
    assert f"above the lowest {run['energy_above_lowest_eV']:.6f} eV (step 2)" in text
    assert "Note: energy ends" not in result.stderr  # the summary has it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["crystal.xyz", "--cell", "full"], "a relaxation of the cell needs the stress, and the calculator has none: "),
        (["slab.xyz", "--forces", "gradient", "--cell", "in-plane", "--pressure", "1"], "the pressure is 1.0 GPa, but"),
        (["crystal.xyz", "--cell", "full", "--smax", "nan"], "smax is nan eV/Å³; it must be a positive number"),
        (["crystal.xyz", "--cell", "full", "--pressure", "nan"], "the pressure is nan GPa; it must be a finite number"),
        (["open.xyz", "--forces", "gradient", "--cell", "full"], "the cell cannot relax in full: Cu must be periodic"),
    ],
)
def test_cells_that_cannot_relax(crystal, arguments, message):
    write("open.xyz", Atoms("Cu", cell=[9, 9, 9]))
    result = escn("relax", *arguments)
    assert result.exit_code == 1
    assert f"Error: {message}" in result.stderr and "Traceback" not in result.output
    assert not Path("runs").exists()


def test_the_way_to_a_stress_is_named(crystal):
    assert "(--forces gradient, in Python" in escn("relax", "crystal.xyz", "--cell", "full").stderr


@pytest.mark.parametrize("option", [["--smax", "0.1"], ["--pressure", "0"]])
def test_options_of_a_cell_mean_nothing_without_one(folder, option):
    result = escn("relax", "slab.xyz", *option)
    assert result.exit_code == 2
    assert f"{option[0]} means nothing with a fixed cell; choose another --cell" in result.stderr
    assert not Path("runs").exists()


def test_stress_is_drawn_where_the_cell_relaxes(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: drawn.append(figure))
    history = (
        CellStep(0, -1.0, 0.0, 0.02, (0.0,) * 6, 10.0, -1.0),
        CellStep(1, -1.5, 0.0, 1e-4, (0.0,) * 6, 9.0, -1.5),
    )
    result = RelaxResult(Atoms("Cu"), "converged", "", history, 0.0, 1.0)
    plot_history(result, "total", 0.05, 5e-4, tmp_path / "plot.png")
    _, forces, stresses = drawn[0].axes
    assert (forces.get_yscale(), stresses.get_yscale()) == ("linear", "log")
    assert stresses.get_ylabel() == "largest stress (eV/Å³)" and stresses.lines[0].get_ydata().tolist() == [0.02, 1e-4]
    assert stresses.get_legend().get_texts()[0].get_text() == "converged below 0.0005 eV/Å³"


def test_unfinished_files_do_not_stay(folder, monkeypatch):
    def fail(self, path, **options):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    result = escn("relax", "slab.xyz")
    assert result.exit_code == 1
    assert "Error: cannot write 'runs/slab/slab.png': No space left on device" in result.stderr
    assert sorted(os.listdir("runs/slab")) == ["slab.traj", "slab_relaxed.extxyz"]


def test_help_is_light_and_names_units(folder):
    code = (
        "import sys\nfrom escn_calc.cli import main\n"
        "try:\n    main(['relax', '--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "print(sorted({'torch', 'matplotlib', 'pymatgen', 'scipy'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[]"
    text = " ".join(done.stdout.split())
    for phrase in (
        "eV/Å",
        "--fix-below-height ANGSTROM",
        "--optimizer NAME Optimiser of ASE: BFGS, ",
        "3 step limit reached",
        "NAME_relaxed.extxyz",
        "0 converged",
    ):
        assert phrase in text, phrase


def test_group_help_lists_commands_and_version():
    text = escn("--help").output
    assert "relax" in text and "models" in text and "eV/Å" in text
    assert escn("--version").output.startswith("escn, version ")
    assert escn("nonsense").exit_code == 2
