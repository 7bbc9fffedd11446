"""Lets fairchem-core 1.10 be imported where packages are missing that eSCN does not use; import this first.

What is imported at the top of fairchem's files, but never called here, is replaced by empty modules.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any

UNUSED = (
    *("lmdb", "submitit", "wandb", "torchtnt", "hydra", "omegaconf", "orjson", "torch_sparse", "torch_cluster"),
    *("torch_scatter", "pymatgen", "huggingface_hub", "tensorboard", "numba", "pydantic", "requests", "monty"),
)


class Nothing(types.ModuleType):
    """Stands for a missing package: every name in it is an empty class."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> type:
        """Return an empty class."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(
            name, (), {"__init__": lambda self, *_, **__: None, "__class_getitem__": classmethod(lambda c, _: c)}
        )


class MissingPackages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds those of ``UNUSED`` that nothing else finds."""

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """Of an empty module."""
        unused = name.split(".")[0] in UNUSED
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if unused else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Make the empty module."""
        return Nothing(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Leave it empty."""


sys.meta_path.append(MissingPackages())
published_files: Any = types.ModuleType("fairchem.core.models.model_registry")
published_files.available_pretrained_models, published_files.model_name_to_local_file = (), None
sys.modules[published_files.__name__] = published_files
sys.modules["torch.utils.tensorboard"] = Nothing("torch.utils.tensorboard")
