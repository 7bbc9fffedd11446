"""Reading labelled frames: what is taken from the file, and what is refused with which message."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from escn_calc.errors import InputError
from escn_calc.labels import DataSource, LabelKeys, file_hashes, read_frames
from tests.training.data_files import labelled, slab, write_database, write_slabs

SIDS = ["x", "x", "y"]


def read(path: Path, keys: LabelKeys | None = None, group_by: str = "sid", index: str = ":"):
    return read_frames([DataSource(path, index)], keys or LabelKeys(), group_by)


@pytest.mark.parametrize("name", ["data.extxyz", "data.traj", "data.db", "data.json", "data.extxyz.gz"])
def test_labels_groups_and_constraints_of_each_format(tmp_path, name):
    is_database = name.endswith((".db", ".json"))
    path = (write_database if is_database else write_slabs)(tmp_path / name, SIDS)
    frames = read(path)
    assert [frame.energy for frame in frames] == [0.0, -1.0, -2.0]
    assert [frame.group for frame in frames] == SIDS
    assert [frame.origin for frame in frames] == [f"{path}@{number}" for number in range(3)]
    np.testing.assert_allclose(frames[2].forces[:, 0], [1, 2, 3, 4])  # fixed atoms keep theirs
    assert frames[0].atoms.constraints[0].index.tolist() == [0, 1]
    assert frames[0].atoms.calc is None
    np.testing.assert_allclose(frames[1].atoms.positions, slab(1).positions, atol=1e-7)


@pytest.mark.skipif(find_spec("ase_db_backends") is not None, reason="the backend is installed")
def test_aselmdb_names_the_package_to_install(tmp_path):
    path = tmp_path / "data.aselmdb"
    path.write_bytes(b"LMDB")
    with pytest.raises(InputError, match=r"data\.aselmdb.*pip install ase-db-backends"):
        read(path)


@pytest.mark.skipif(find_spec("ase_db_backends") is None, reason="the backend is not installed")
def test_aselmdb_is_read_and_not_changed(tmp_path):
    path = write_database(tmp_path / "data.aselmdb", SIDS)
    before = path.read_bytes()
    frames = read(path)
    assert [frame.group for frame in frames] == SIDS
    assert [frame.energy for frame in frames] == [0.0, -1.0, -2.0]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("index", "numbers"), [("1", [1]), ("-1", [2]), ("::2", [0, 2]), ("-2:", [1, 2]), ("1:2", [1]), ("::-1", [2, 1, 0])]
)
def test_index_selects_frames_and_origins_count_in_the_file(tmp_path, index, numbers):
    path = write_slabs(tmp_path / "data.extxyz", SIDS)
    frames = read(path, index=index)
    assert [frame.energy for frame in frames] == [-number for number in numbers]
    assert [frame.origin for frame in frames] == [f"{path}@{number}" for number in numbers]


def test_several_sources_with_progress_and_repeat(tmp_path):
    first, second = (write_slabs(tmp_path / name, SIDS) for name in ("a.extxyz", "b.traj"))
    done = []
    frames = read_frames([DataSource(first), DataSource(second, "0", repeat=3)], LabelKeys(), "file", done.append)
    assert done == [1, 2, 3, 4]
    assert [frame.repeat for frame in frames] == [1, 1, 1, 3]
    assert [frame.group for frame in frames] == [str(first)] * 3 + [str(second)]


def test_grouping_by_composition_and_frame(tmp_path):
    path = tmp_path / "data.extxyz"
    write(path, [labelled(slab(0)), labelled(bulk("Ni")), labelled(slab(1))])
    assert [frame.group for frame in read(path, group_by="composition")] == ["Cu4", "Ni", "Cu4"]
    assert len({frame.group for frame in read(path, group_by="frame")}) == 3


def test_named_labels_come_before_calculator_results(tmp_path):
    atoms = labelled(bulk("Cu"), energy=-1.0, dft_energy=-7.5)
    atoms.arrays["dft_forces"] = np.array([[0.0, 0.0, 2.5]])
    path = tmp_path / "data.extxyz"
    write(path, atoms)
    (frame,) = read(path, LabelKeys(energy="dft_energy", forces="dft_forces"), "file")
    assert frame.energy == -7.5
    assert frame.forces.tolist() == [[0.0, 0.0, 2.5]]
    (frame,) = read(path, LabelKeys(energy="energy"), "file")
    assert frame.energy == -1.0


def test_stress_in_voigt_order_and_only_for_full_periodicity(tmp_path):
    tensor = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    solid, film = bulk("Cu"), bulk("Cu")
    film.pbc = (True, True, False)
    for atoms in (solid, film):
        atoms.info["virial_stress"] = tensor
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, stress=np.arange(6.0))
    path = tmp_path / "data.extxyz"
    write(path, [solid, film])
    named, without = read(path, LabelKeys(stress="virial_stress"), "file")
    assert named.stress.tolist() == [1, 2, 3, 4, 5, 6]
    assert without.stress is None
    assert read(path, group_by="file")[0].stress.tolist() == [0, 1, 2, 3, 4, 5]
    assert read(path, group_by="file")[0].forces is None


def test_a_frame_may_lack_one_of_energy_and_forces(tmp_path):
    only_forces = bulk("Cu")
    only_forces.calc = SinglePointCalculator(only_forces, forces=np.ones((1, 3)))
    path = tmp_path / "data.traj"
    write(path, only_forces)
    (frame,) = read(path, group_by="file")
    assert frame.energy is None
    assert frame.forces.tolist() == [[1, 1, 1]]


def with_results(**results: object) -> Atoms:
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms)
    atoms.calc.results = results
    return atoms


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (with_results(energy=np.nan), "data.traj@1: energy not finite"),
        (
            with_results(energy=0.0, forces=np.array([[0, np.inf, 0]])),
            "data.traj@1: forces of atom 0 not finite",
        ),
        (
            with_results(energy=0.0, forces=np.zeros(3)),
            r"data.traj@1: forces of shape \(3,\), expected \(1, 3\)",
        ),
        (with_results(energy=np.zeros(2)), r"energy of shape \(2,\), expected \(\)"),
        (with_results(energy="low"), "energy = 'low' is not a number"),
        (with_results(magmom=1.0), "data.traj@1: the frame has neither energy nor forces; it has results: magmom"),
        (bulk("Cu"), "neither energy nor forces; it has results: nothing"),
        (labelled(Atoms("X")), "data.traj@1: atom 0 of structure 0 has atomic number 0"),
        (labelled(Atoms("H", [[np.nan, 0, 0]])), "data.traj@1: atom 0 .* positions must be finite"),
    ],
)
def test_bad_frames_are_refused_by_name(tmp_path, atoms, message):
    path = tmp_path / "data.traj"
    write(path, [labelled(bulk("Cu")), atoms])
    with pytest.raises(InputError, match=message):
        read(path, group_by="file")


@pytest.mark.parametrize(
    ("keys", "group_by", "message"),
    [
        (
            LabelKeys(energy="dft"),
            "sid",
            "@0: no entry 'dft' for the energy; the frame has results: .*energy.*, info: sid",
        ),
        (LabelKeys(forces="dft_f"), "sid", "no entry 'dft_f' for the forces.*arrays: numbers positions"),
        (LabelKeys(stress="s"), "sid", "no entry 's' for the stress"),
        (LabelKeys(), "system", "@0: no entry 'system' in its info to group by; there is sid. Group by"),
    ],
)
def test_missing_keys_are_refused_with_those_that_exist(tmp_path, keys, group_by, message):
    with pytest.raises(InputError, match=message):
        read(write_slabs(tmp_path / "data.extxyz", SIDS), keys, group_by)


def test_unusable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.extxyz does not exist"):
        read(tmp_path / "none.extxyz")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    for name in ("empty.extxyz", "empty.traj"):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=f"{name} is empty"):
            read(tmp_path / name)
    for name in ("text.extxyz", "text.traj", "text.db", "text.json", "text.unknown"):
        (tmp_path / name).write_text("not a structure\n" * 20)
        with pytest.raises(InputError, match=f"{name}: ASE cannot read frame 0"):
            read(tmp_path / name)
    with pytest.raises(InputError, match=r"text\.unknown: ASE cannot read frame 0 \(it knows no such file format\)"):
        read(tmp_path / "text.unknown")
    path = write_slabs(tmp_path / "data.extxyz", SIDS)
    with pytest.raises(InputError, match=r"data.extxyz has no frames \(index '7'\)"):
        read(path, index="7")
    path.write_text(path.read_text()[:-100])
    with pytest.raises(InputError, match=r"data\.extxyz: ASE cannot read frame"):
        read(path)


def test_bad_sources_are_refused():
    with pytest.raises(InputError, match="repeat is 0"):
        DataSource(Path("a.traj"), repeat=0)
    with pytest.raises(InputError, match="index 'first' is neither"):
        DataSource(Path("a.traj"), index="first")


def test_hashes_are_those_of_the_files(tmp_path):
    path = write_slabs(tmp_path / "data.extxyz", SIDS)
    assert file_hashes([DataSource(path)]) == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
