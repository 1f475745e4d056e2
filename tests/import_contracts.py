"""The import contract that import-linter lacks: packages may import themselves, stdlib and what is named."""

from __future__ import annotations

import sys
from typing import cast

import grimp
from importlinter import Contract, ContractCheck, fields, output


class OnlyTheseContract(Contract):
    """Every direct import of `packages` leads to themselves, to the standard library or into `allowed`."""

    type_name = "only_these"

    packages = fields.ListField(subfield=fields.StringField())
    allowed = fields.ListField(subfield=fields.StringField())

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        """Kept if no module of `packages` imports anything else."""
        # import-linter puts the parsed lists where the class declares its fields
        own, allowed = cast("list[str]", self.packages), cast("list[str]", self.allowed)
        tolerated = {*own, *allowed, *sys.stdlib_module_names}
        foreign = sorted(
            (importer, imported)
            for package in own
            for importer in {package} | graph.find_descendants(package)
            for imported in graph.find_modules_directly_imported_by(importer)
            if imported.partition(".")[0] not in tolerated
        )
        return ContractCheck(kept=not foreign, metadata={"foreign": foreign})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name importer and imported, one a line."""
        for importer, imported in check.metadata["foreign"]:
            output.print_error(f"- {importer} -> {imported}", bold=False)
