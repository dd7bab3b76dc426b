"""A hook of mkdocs: notebooks become pages in Markdown, so that their links are checked as well."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds ``NAME.md`` and its figures for each ``NAME.ipynb``, which stays to be downloaded."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        name = notebook.src_uri.removesuffix(".ipynb")
        text, resources = MarkdownExporter().from_filename(
            notebook.abs_src_path, resources={"output_files_dir": f"{Path(name).name}_files"}
        )
        files.append(File.generated(config, f"{name}.md", content=text))
        for figure, content in resources["outputs"].items():
            path = (Path(name).parent / figure).as_posix()
            files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Pages name notebooks as they lie in the repository; here they go to the page of each."""
    markdown = re.sub(r"\]\(([\w./-]+)\.ipynb\)", r"](\1.md)", markdown)
    notebook = Path(page.file.src_uri).with_suffix(".ipynb")
    if files.get_file_from_path(notebook.as_posix()):
        markdown += f"\n[This page as a notebook]({notebook.name})\n"
    return markdown
