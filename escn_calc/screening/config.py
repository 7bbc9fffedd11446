"""What a screening campaign computes: the models behind the YAML file of ``escn screen``.

Lengths are in Å, energies in eV, forces in eV/Å and stresses in eV/Å³. Every contradiction that can be seen without the
model and without building a structure is found here. The file is read by
:func:`escn_calc.screening.config_file.read_campaign`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, field_validator, model_validator

from escn_calc.adsorption.anomalies import Thresholds
from escn_calc.adsorption.references import ReferenceScheme, named_scheme, own_scheme
from escn_calc.batch_relaxation.arguments import batch_optimizer
from escn_calc.relax import DEFAULT_SMAX
from escn_calc.yaml_config import FilePath, Section, contradiction

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Lattice = Literal["fixed", "isotropic", "full"]


def _not_a_number(name: str) -> str:
    """Refuse names that a database would take for a number or a truth value."""
    try:
        float(name)
    except ValueError:
        if name.strip() and name not in ("True", "False"):
            return name
    raise ValueError(f"{name!r} cannot be a name: it is empty, or reads as a number; choose a word")


Name = Annotated[str, AfterValidator(_not_a_number)]


class ModelSection(Section):
    """A model of this package, and how it is evaluated; see ``load_potential``.

    Attributes
    ----------
    name : shipped, published, or the path of one beside the YAML file.
    """

    name: Annotated[str, Field(min_length=1)] = "default"
    dtype: Literal["float32", "float64"] = "float32"
    matmul: Literal["full", "bfloat16", "tf32"] = "full"
    forces: Literal["direct", "gradient"] | None = None
    frames: Literal["canonical", "converged"] = "canonical"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value


class CalculatorSection(Section):
    """Any ASE calculator in place of a model.

    Attributes
    ----------
    factory : ``module:callable``; what the callable returns is the calculator.
    arguments : keyword arguments of the callable.
    energy_kind : what its energies are; nothing here guesses.
    energy_reference : the zero of its energies, in words.
    cutoff : Å within which an atom feels others, if it is to be checked that images of a slab do not; None if not.
    """

    factory: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    energy_kind: Literal["total", "adsorption"]
    energy_reference: str = "as the calculator defines it"
    cutoff: Positive | None = None


class BulkSection(Section):
    """A crystal that slabs are cut from.

    Attributes
    ----------
    source : an element or compound that ASE knows (``Cu``), or a file beside the YAML file.
    name : of its surfaces; None for that of the source.
    crystal : ASE's name of a structure, such as ``rocksalt``; None for that of the element.
    a : lattice constant in Å; None for that of the element.
    lattice : overrides ``lattice`` of the campaign.
    """

    source: Annotated[str, Field(min_length=1)]
    name: Name | None = None
    crystal: str | None = None
    a: Positive | None = None
    lattice: Lattice | None = None

    @model_validator(mode="before")
    @classmethod
    def _source_alone(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value


class SurfaceSection(Section):
    """How slabs are cut.

    Attributes
    ----------
    facets : Miller indices: ``111``, ``"0001"`` in quotes, or lists of three or four integers.
    layers, minimum_thickness : at least so many layers, and so many Å from the lowest to the highest atom.
    minimum_width, minimum_area, supercell : least distance of images (Å), least area (Å²), or the repeats themselves.
    vacuum : Å between the slab and its image.
    symmetric : whether both sides are the same.
    free_layers : layers from the top that relax.
    """

    facets: Annotated[tuple[str, ...], Field(min_length=1)]
    layers: Count | None = None
    minimum_thickness: Positive | None = None
    vacuum: Positive = 15.0
    minimum_width: Positive | None = None
    minimum_area: Positive | None = None
    supercell: tuple[Count, Count] | None = None
    symmetric: bool = False
    free_layers: Annotated[int, Field(ge=0)] = 2

    @field_validator("facets", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return tuple(map(_facet_text, value if isinstance(value, list) else [value]))

    @model_validator(mode="after")
    def _one_size(self) -> SurfaceSection:
        if self.supercell is not None and (self.minimum_width is not None or self.minimum_area is not None):
            raise contradiction(
                ("supercell",), "fixes the size, which minimum_width or minimum_area would choose; give one of them"
            )
        return self


def _facet_text(facet: object) -> object:
    if isinstance(facet, list):
        return " ".join(map(str, facet))
    if type(facet) is not int:
        return facet
    if 0 <= facet < 100:
        raise ValueError(f'facet {facet}: leading zeros are lost without quotes; write it as a text, such as "011"')
    return str(facet)


class SlabSection(Section):
    """A slab from a file, taken as it is, with its tags and constraints."""

    path: FilePath
    name: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value


class AdsorbateSection(Section):
    """What is put on the slabs.

    Attributes
    ----------
    source : a name of the catalogue (``OH``), or a file beside the YAML file; or several that are adsorbed together.
    name : None for that of the source.
    binding : indices of the atoms that bind; None for those of the catalogue.
    """

    source: Annotated[tuple[str, ...], Field(min_length=1)]
    name: Name | None = None
    binding: Annotated[tuple[int, ...], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _source_alone(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("source", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value

    @field_validator("binding", mode="before")
    @classmethod
    def _as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _names_of_one(self) -> AdsorbateSection:
        given = [key for key in ("name", "binding") if getattr(self, key) is not None]
        if len(self.source) > 1 and given:
            raise contradiction((given[0],), "means nothing for several adsorbates together; leave it out")
        return self


class PlacementSection(Section):
    """Where adsorbates are put.

    Attributes
    ----------
    mode : "sites", one on each symmetry-unique site; "heuristic" and "random" as in AdsorbML.
    number : placements of each adsorbate on each slab; not with "sites".
    seed : of what is random; not with "sites".
    coverage : monolayers, adsorbates per surface atom; a list for several, null for one adsorbate in the cell.
    """

    mode: Literal["sites", "heuristic", "random"] = "sites"
    number: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    coverage: Annotated[tuple[Positive | None, ...], Field(min_length=1)] = (None,)

    @field_validator("coverage", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else (value,)

    @model_validator(mode="after")
    def _keys_of_the_mode(self) -> PlacementSection:
        given = [name for name in ("number", "seed") if name in self.model_fields_set]
        if self.mode == "sites" and given:
            raise contradiction(
                (given[0],),
                "means nothing with mode: sites, which takes every site once; leave it out, or choose "
                "mode: heuristic or random",
            )
        return self


class RelaxationSection(Section):
    """How everything is relaxed; named as in ``relax_batch``."""

    optimizer: Annotated[str, AfterValidator(batch_optimizer)] = "LBFGS"
    fmax: Positive = 0.05
    steps: Count = 300
    smax: Positive = DEFAULT_SMAX


class AnomalySection(Section):
    """What counts as an anomaly, and whether one ends its relaxation.

    Attributes
    ----------
    stop : whether a relaxation ends when its adsorbate has desorbed, dissociated or exploded.
    thresholds : values of :class:`escn_calc.adsorption.anomalies.Thresholds` other than the default ones.
    """

    stop: bool = True
    thresholds: Thresholds = Thresholds()


class CampaignConfig(Section):
    """A screening campaign.

    Attributes
    ----------
    out : folder of all results.
    database : URL of a PostgreSQL database; None for SQLite in ``out``.
    model, calculator : what relaxes; neither for the default model.
    bulks, surfaces : crystals and how slabs are cut from them.
    slabs : slabs from files, instead or besides.
    lattice : whether the model relaxes the bulks first: "full", "isotropic" (size only), "fixed" (as given); None for
        "full" with total energies and "fixed" with adsorption energies, of which bulks have none.
    adsorbates, placements : what is adsorbed where.
    relaxation : how everything is relaxed.
    references : name of a reference scheme, or references by adsorbate or element; None for "oc20" with total energies.
    anomalies : what counts as one.
    """

    out: FilePath
    database: Annotated[str, Field(pattern=r"^postgres(ql)?://")] | None = None
    model: ModelSection | None = None
    calculator: CalculatorSection | None = None
    bulks: tuple[BulkSection, ...] = ()
    surfaces: SurfaceSection | None = None
    slabs: tuple[SlabSection, ...] = ()
    lattice: Lattice | None = None
    adsorbates: Annotated[tuple[AdsorbateSection, ...], Field(min_length=1)]
    placements: PlacementSection = PlacementSection()
    relaxation: RelaxationSection = RelaxationSection()
    references: str | dict[str, str | float] | None = None
    anomalies: AnomalySection = AnomalySection()

    @field_validator("bulks", "slabs", "adsorbates", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if isinstance(value, str | dict):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @field_validator("references", mode="before")
    @classmethod
    def _that_can_be_read(cls, value: object) -> object:
        _scheme(value)
        return value

    @model_validator(mode="after")
    def _parts_that_fit(self) -> CampaignConfig:
        if self.model is not None and self.calculator is not None:
            raise contradiction(("calculator",), "found both model and calculator; give one of them")
        if not self.bulks and not self.slabs:
            raise contradiction((), "found neither bulks nor slabs; give what adsorbates are put on")
        if self.bulks and self.surfaces is None:
            raise contradiction(("surfaces",), "is missing: say which facets the slabs have, such as {facets: [111]}")
        if self.surfaces is not None and not self.bulks:
            raise contradiction(("surfaces",), "means nothing without bulks; leave it out, or give bulks")
        if self.lattice is not None and not self.bulks:
            raise contradiction(("lattice",), "means nothing without bulks; leave it out, or give bulks")
        return self

    @property
    def scheme(self) -> ReferenceScheme:
        """The reference scheme."""
        return _scheme("oc20" if self.references is None else self.references)

    @property
    def thresholds(self) -> Thresholds:
        """What counts as an anomaly."""
        return self.anomalies.thresholds

    @property
    def surface_settings(self) -> dict[str, Any]:
        """How slabs are cut, as values that JSON can hold; without the facets."""
        return {} if self.surfaces is None else self.surfaces.model_dump(mode="json", exclude={"facets"})

    @property
    def anomaly_settings(self) -> dict[str, Any]:
        """What counts as an anomaly, as values that JSON can hold."""
        return {"stop": self.anomalies.stop, **asdict(self.anomalies.thresholds)}


def _scheme(references: object) -> ReferenceScheme:
    if isinstance(references, dict):
        return own_scheme(references)
    if isinstance(references, str):
        return named_scheme(references)
    raise ValueError(
        f"found {references!r}; give the name of a reference scheme, or references by adsorbate or element"
    )
