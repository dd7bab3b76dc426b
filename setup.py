"""Puts a copy of tools/run.py into the package; all else is said in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """The script goes to devices as a single file, so it stays in ``tools`` in a checkout."""

    def run(self) -> None:
        """Builds the packages; an editable installation finds the script by its path."""
        super().run()
        if not self.editable_mode:
            script, copy = self._script
            self.copy_file(script, copy)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """What was built."""
        outputs: list[str] = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, self._script[1]]

    @property
    def _script(self) -> tuple[str, str]:
        return "tools/run.py", str(Path(self.build_lib) / "tfprune" / "cli" / "run.py")


setup(cmdclass={"build_py": BuildPy})
