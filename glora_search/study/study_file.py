"""A whole study file, resolved: its sections, as pydantic models.

`[study] [backbone] [data] [space] [supernet] [sweep] [search] [cluster] [export]`. Neither torch
nor Optuna is imported, so the mistakes of a study file are shown at once.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationInfo, field_validator

from glora_search.study.data_sections import DataSection
from glora_search.study.network_sections import BackboneSection, SpaceSection, SupernetSection
from glora_search.study.place_sections import ClusterSection, ExportSection, StudySection
from glora_search.study.search_section import SearchSection
from glora_search.study.section_types import Section
from glora_search.study.sweep_section import SweepSection


class StudyFile(Section):
    """A whole study file, resolved: every key has its value."""

    study: StudySection
    backbone: BackboneSection
    data: DataSection
    space: SpaceSection
    supernet: SupernetSection = SupernetSection()
    sweep: SweepSection = SweepSection()
    search: SearchSection = SearchSection()
    cluster: ClusterSection = ClusterSection()
    export: ExportSection = ExportSection()

    @field_validator("export")
    @classmethod
    def _not_more_than_there_are(cls, value: ExportSection, info: ValidationInfo) -> ExportSection:
        search = info.data.get("search")
        if search is not None:
            most = search.population * (search.generations + 1)
            for key, n in (("average", value.average), ("soup", value.soup)):
                if n > most:
                    raise ValueError(
                        f"{key} must be at most {most}, the subnets of the search; got {n}"
                    )
        return value

    @property
    def run_directory(self) -> Path:
        """The folder of this study's files."""
        return self.study.directory / self.study.name

    @property
    def export_directory(self) -> Path:
        """Where the end of the search is exported: the winner, or what [export] says."""
        return self.export.directory or self.run_directory / "export"

    def to_json(self) -> str:
        """The resolved study, as stored in the database."""
        return self.model_dump_json()
