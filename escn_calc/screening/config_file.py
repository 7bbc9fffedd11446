"""Reading the YAML file of a campaign: every mistake is named with file, line and key before any work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from escn_calc.errors import InputError
from escn_calc.screening.config import CampaignConfig, ModelSection
from escn_calc.yaml_config import validated
from escn_calc.yaml_file import Key, YamlFile, dotted, read_yaml


@dataclass(frozen=True)
class CampaignFile:
    """What is to be computed, and where that was read.

    Attributes
    ----------
    config : CampaignConfig
        What the file says.
    file : YamlFile
        Where it says so.
    """

    config: CampaignConfig
    file: YamlFile

    @property
    def folder(self) -> Path:
        """Folder that paths in the file are relative to."""
        return self.file.path.absolute().parent

    @property
    def model_key(self) -> Key:
        """Where the file says what relaxes; empty if it does not."""
        return tuple(key for key in ("model", "calculator") if key in self.file.data)

    @property
    def text(self) -> str:
        """The file as it stands."""
        return self.file.path.read_text(encoding="utf-8")

    def on_device(self, device: str) -> CampaignFile:
        """Return the same with the model on another device; where a calculator runs is its own matter."""
        if self.config.calculator is not None:
            raise InputError("a device means nothing for a calculator; give it one among its arguments")
        model = (self.config.model or ModelSection()).model_copy(update={"device": device})
        return replace(self, config=self.config.model_copy(update={"model": model}))

    def beside(self, source: str) -> str | Path:
        """Return the file beside the YAML file that a text names, or the text if there is none."""
        path = self.folder / Path(source).expanduser()
        return path if path.exists() else source

    def error(self, key: Key, message: str) -> InputError:
        """Make an error about the value of a key, with file and line."""
        where = f"{dotted(key)}: " if key else ""
        return InputError(f"{self.file.path}:{self.file.line_of(key)}: {where}{message}")

    @contextmanager
    def at(self, key: Key) -> Iterator[None]:
        """Give errors within file and line of the key that asked for what cannot be done."""
        try:
            yield
        except InputError as error:
            raise self.error(key, str(error)) from error


def read_campaign(path: str | Path) -> CampaignFile:
    """Read the YAML file of a screening campaign.

    Parameters
    ----------
    path : str or Path
        The file; relative paths in it are relative to its folder.

    Raises
    ------
    InputError
        The file cannot be read, is not YAML, or asks for something that cannot be; the message begins with file, line
        and key.
    """
    file = read_yaml(Path(path))
    return CampaignFile(validated(file, CampaignConfig), file)
